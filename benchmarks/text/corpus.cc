#include "benchmarks/text/corpus.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <random>
#include <sstream>
#include <vector>

namespace prism {
namespace {

std::vector<std::string> Words(const char* list) {
  std::vector<std::string> words;
  std::istringstream stream(list);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// Most frequent first.
const char kFunctionWords[] =
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an "
    "they which one you were all her she there would their we him been has when who will no more if out so "
    "up said what its about than into them can only other time new some could these two may first then do "
    "any like my now over such our man me even most made after also did many off before must well back "
    "through years much where your way down should because long each just state those people too mr how "
    "little good world make very year still see own work men day get here between both life being under "
    "three never know same last another while us might great go come since against right came take used "
    "himself few house use place during high without again home around small however found thought went";

const char kStems[] =
    "act add adapt admir agree aim alter answer appear argu arrang assembl assum attach attempt balanc bank "
    "batch bear begin belong bind block blur board boil bound brand break breath bridg bright bring broad "
    "build burn calcul call captur care carr cast caus cell center chang charg chart check chemic circl "
    "cit claim class clean clear clim clos cloud coach cloth collect color combin comfort command commerc "
    "compar compet compil compos comput concern condens conduct connect consid construct consum contain "
    "continu contract control convert cook cool cost count cour cover crat cream creat credit cross crystal "
    "cultur curv custom damag danc dark deal decid decod deep defin deliver depend describ desert design "
    "detect determin develop dialog differ digit direct discuss display distribut divid doctor doubl draft "
    "dream drift drop duplic eager earn earth econom edit educ effect elect element embed emerg emit employ "
    "encod engin enter equal establish estim evalu event examin exchang execut exist expand expect explain "
    "explor express extend extract fabric fail famili farm fasten fast feed feel fiber field figur fill "
    "filter final finish firm flash float flood flow focus fold follow forc forest forget form fortun frame "
    "free fresh friend function fund garden gather gener gentl glass glow grain grand grant graph grasp "
    "green ground group grow guard guid handl happen hard harvest heat help hesit hidden histor hold hunt "
    "imagin impact import improv includ increas indic industr inform inherit inject insert inspect inspir "
    "instal instruct intend interest interpret introduc invent invest invit issu join journ judg justif "
    "kernel label labor land languag laugh launch layer lead learn leath legend lend level liber light limit "
    "listen liter load local lock logic look machin magnet main major manag manual margin mark market master "
    "match materi matter measur mechan memor mention merch merg method middl mind minist mirror model modern "
    "modul moment monitor motion mount mountain move music narr nation natur neglect network neutral normal "
    "north notic number object observ obtain occup ocean offer offic open oper oppos optim order organ "
    "origin "
    "output paint panel paper parallel parent partic pass patch patient pattern paus perform period permit "
    "person phas photo phras pictur piec pilot plan plant plastic play point polic polit popul port posit "
    "power practic precis predict prefer prepar present press prevent print privat problem process produc "
    "profess program project promis proper propos protect prov public publish pull pump purchas qualif "
    "quantit quest quick quiet radi random rang rapid reach react read realis reason receiv recogn record "
    "reduc refer reflect reform refus regard region regist regul reject relat releas rememb remov render "
    "repeat replac report request requir rescu research reserv resid resist resolv respond restor result "
    "retain return reveal revers review revolv river road rock rotat round rout rule sail sampl satisf scal "
    "scatter schedul scienc scratch screen search season secret section secur select separ sequenc seri serv "
    "settl shadow shap share sharp shelter shift ship signal silent silver simpl singl skill slic slow smart "
    "smooth social soft solut sound sourc south spac speci speed spin spirit split sport spread spring squar "
    "stabl stack stag standard start station stead steel step stock stor strang stream street stress stretch "
    "strict structur student studi style subject submit success suffer suggest suit suppl support suppos "
    "surfac surpris surround surviv suspect switch symbol system tabl target teach technic tempor tend tens "
    "term test textur theor thick thread threat throw ticket tight timber token toler tongu topic total "
    "touch "
    "tour trace track trad train transfer transform transl transport travel treat trend trial trigger trust "
    "tunnel turn typ under unit univers updat urban usual valid valu vari vector verif vers video view "
    "villag "
    "violat visit vision visual volum wander warm warn wash watch water weather weight west whisper wild "
    "wind "
    "wonder wood work world worth wrap writ yield young zero zone";

const char kEndings[] =
    "s ed ing er ers ion ions al ally ment ments able ly e es ation ive or ity ness ful ist ize ized less "
    "ant ence";

const char kNames[] =
    "Alice Amsterdam April Berlin Boston Cairo Charles Danube Dublin Edward Elena Fatima Geneva Hannah India "
    "January Johnson Kyoto Lagos Lisbon Maria Mozart Nairobi Newton Oslo Oxford Paris Patel Quebec Rhine "
    "Sarajevo Singapore Smith Tanaka Tokyo Uganda Vienna Wednesday Xavier Yorkshire Zurich";

const char kChineseWords[] =
    "我们 他们 你们 自己 什么 没有 一个 可以 这个 那个 因为 所以 但是 如果 虽然 已经 现在 时候 时间 今天 "
    "明天 昨天 问题 "
    "工作 学习 生活 社会 国家 世界 中国 人民 经济 发展 技术 科学 研究 教育 文化 历史 政治 政府 企业 公司 "
    "市场 产品 服务 "
    "管理 系统 信息 数据 网络 计算 计算机 程序 软件 硬件 设计 开发 测试 运行 方法 过程 结果 原因 影响 关系 "
    "情况 条件 环境 "
    "资源 能力 水平 质量 数量 价格 成本 利润 投资 银行 金融 股票 城市 农村 地区 北京 上海 广州 深圳 香港 "
    "台湾 美国 日本 "
    "英国 法国 德国 俄罗斯 欧洲 亚洲 非洲 学校 大学 老师 学生 朋友 家庭 父母 孩子 女人 男人 医生 医院 健康 "
    "身体 疾病 "
    "治疗 药物 食品 水果 蔬菜 米饭 面条 牛奶 咖啡 茶叶 天气 下雨 太阳 月亮 星星 山水 河流 海洋 森林 动物 "
    "植物 花园 音乐 "
    "电影 电视 新闻 报纸 杂志 书籍 小说 诗歌 艺术 绘画 摄影 体育 足球 篮球 比赛 运动 旅游 飞机 火车 汽车 "
    "公路 交通 安全 "
    "法律 法院 警察 军队 战争 和平 图片 图像 文字 语言 模型 训练 推理 视觉 编码 解码 注意 机制 参数 梯度 "
    "优化 函数 变量 "
    "循环 数组 字符 字符串 文件 目录 用户 密码 登录 注册 搜索 推荐 广告 视频 直播 平台 手机 电脑 屏幕 键盘 "
    "鼠标 打印 "
    "非常 特别 十分 比较 更加 最好 一定 可能 应该 必须 需要 希望 认为 觉得 知道 了解 明白 发现 看到 听到 "
    "说话 告诉 回答 "
    "开始 结束 继续 停止 改变 提高 增加 减少 保护 利用 解决 建设 组织 领导 参加 支持 反对 同意 决定 选择 "
    "准备 进行 实现 "
    "完成 成功 失败 努力 坚持 重要 主要 基本 一般 特殊 复杂 简单 困难 容易 美丽 漂亮 高兴 快乐 悲伤 愤怒 "
    "害怕 奇怪 新鲜 "
    "古老 年轻 巨大 微小 迅速 缓慢 明显 清楚 模糊 准确 错误 正确 真实 虚假 公开 秘密 自由 平等 民主 第一 "
    "第二 第三 全部 "
    "部分 许多 少数 大约 左右 以上 以下 之间 之后 之前 同时 突然 终于 仍然 甚至 而且 或者 然后 通过 根据 "
    "关于 对于 由于";

const char kChineseCharacters[] =
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多"
    "然于心学么之都好看起"
    "发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很"
    "给名法间斯知世什两次"
    "使身者被高已亲其进此话常与活正感见明问力理尔点文几定本公特做外孩相西果走将月十实向声车全信重三机工物气每"
    "并别真打太新比才便夫"
    "再书部水像眼等体却加电主界门利海受听表德少克代员许稜先口由死安写性马光白或住难望教命花结乐色更拉东神记处"
    "让母父应直字场平报友"
    "关放至张认接告入笑内英军候民岁往何度山觉路带万男边风解叫任金快原吃妈变通师立象数四失满战远格士音轻目条呢"
    "病始达深完今提求清王"
    "化空业思切怎非找片罗钱紶吗语元喜曾离飞科言干流欢约各即指合反题必该论交终林请医晚制球决窢传画保读运及则房"
    "早院量苦火布品近坐产"
    "答星精视五连司巴奇管类未朋且婚台夜青北队久乎越观落尽形影红爸百令周吧识步希亚术留市半热送兴造谈容极随演收"
    "首根讲整式取照办强石";

const char kPunctuation[] = "， ， ， ， 。 。 、 ； ： ？ ！";

class Source {
 public:
  explicit Source(uint32_t seed) : random_(seed) {}
  // 0 .. bound - 1
  size_t Below(size_t bound) { return random_() % bound; }
  bool Chance(int percent) { return Below(100) < static_cast<size_t>(percent); }
  // Of a list with the most frequent first: rank r comes about as often as 1 / (r + 1).
  const std::string& Zipf(const std::vector<std::string>& list) {
    const double u = (static_cast<double>(random_()) + 0.5) / 4294967296.0;
    const auto rank = static_cast<size_t>(std::pow(static_cast<double>(list.size()) + 1, u)) - 1;
    return list[std::min(rank, list.size() - 1)];
  }
  const std::string& Any(const std::vector<std::string>& list) { return list[Below(list.size())]; }

 private:
  std::mt19937 random_;
};

// Every stem with every ending, in an order of frequency that the seed fixes.
std::vector<std::string> Lexicon(uint32_t seed) {
  std::vector<std::string> lexicon;
  for (const std::string& stem : Words(kStems)) {
    for (const std::string& ending : Words(kEndings)) lexicon.push_back(stem + ending);
  }
  std::mt19937 random(seed);
  for (size_t i = lexicon.size() - 1; i > 0; --i) std::swap(lexicon[i], lexicon[random() % (i + 1)]);
  return lexicon;
}

std::string Capitalized(std::string word) {
  word[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(word[0])));
  return word;
}

std::vector<std::string> Characters(const char* text) {
  std::vector<std::string> characters;
  for (const char* at = text; *at != '\0'; at += 3) characters.emplace_back(at, 3);  // all of three bytes
  return characters;
}

}  // namespace

std::string EnglishCorpus(size_t bytes, uint32_t seed) {
  Source source(seed);
  const std::vector<std::string> common = Words(kFunctionWords);
  const std::vector<std::string> lexicon = Lexicon(seed);
  const std::vector<std::string> names = Words(kNames);
  std::string text;
  while (text.size() < bytes) {
    const size_t length = 5 + source.Below(25);
    for (size_t i = 0; i < length; ++i) {
      std::string word = source.Chance(50)  ? source.Zipf(common)
                         : source.Chance(6) ? source.Any(names)
                         : source.Chance(3) ? std::to_string(source.Below(3000))
                                            : source.Zipf(lexicon);
      if (i == 0) word = Capitalized(word);
      text += word;
      if (i + 1 == length) break;
      text += source.Chance(7) ? ", " : source.Chance(1) ? " (" : source.Chance(1) ? "'s " : " ";
    }
    text += source.Chance(90) ? "." : "?\"";
    text += source.Chance(15) ? "\n\n" : " ";
  }
  return text;
}

std::string CodeCorpus(size_t bytes, uint32_t seed) {
  Source source(seed);
  const std::vector<std::string> lexicon = Lexicon(seed + 1);
  const std::vector<std::string> types =
      Words("int auto bool float size_t std::string const&T std::vector<int> void");
  const std::vector<std::string> operators = Words("+ - * / == != < >= && || << % | & =");
  const auto identifier = [&]() {
    std::string name = source.Zipf(lexicon);
    for (size_t i = source.Below(3); i > 0; --i) {
      name = source.Chance(50) ? name + "_" + source.Zipf(lexicon) : name + Capitalized(source.Zipf(lexicon));
    }
    return name;
  };
  const auto operand = [&]() -> std::string {
    if (source.Chance(15)) return std::to_string(source.Below(100000));
    if (source.Chance(8)) return "\"" + source.Zipf(lexicon) + " %d: " + source.Zipf(lexicon) + "\\n\"";
    if (source.Chance(15)) return identifier() + "[" + identifier() + "]";
    if (source.Chance(15)) return identifier() + "(" + identifier() + ", " + identifier() + ")";
    return identifier();
  };
  std::string text;
  while (text.size() < bytes) {
    const bool python = source.Chance(40);
    text += python ? "def " + identifier() + "(self, " + identifier() + "=None):\n"
                   : source.Any(types) + " " + Capitalized(identifier()) + "(" + source.Any(types) + " " +
                         identifier() + ") {\n";
    size_t depth = 1;
    for (size_t i = 2 + source.Below(15); i > 0; --i) {
      const std::string indent(depth * (python ? 4 : 2), ' ');
      if (source.Chance(12)) {
        text += indent + (python ? "# " : "// ") + Capitalized(source.Zipf(lexicon)) + " the " +
                source.Zipf(lexicon) + " of " + source.Zipf(lexicon) + ".\n";
      }
      if (source.Chance(20) && depth < 5) {
        text += indent + (python ? "if " : "if (") + operand() + " " + source.Any(operators) + " " +
                operand() + (python ? ":\n" : ") {\n");
        ++depth;
      } else {
        text += indent + identifier() + (source.Chance(50) ? " = " : " += ") + operand() + " " +
                source.Any(operators) + " " + operand() + (python ? "\n" : ";\n");
        if (depth > 1 && source.Chance(35)) {
          --depth;
          if (!python) text += std::string(depth * 2, ' ') + "}\n";
        }
      }
    }
    if (!python) {
      while (depth-- > 0) text += std::string(depth * 2, ' ') + "}\n";
    }
    text += "\n";
  }
  return text;
}

std::string ChineseCorpus(size_t bytes, bool punctuation, uint32_t seed) {
  Source source(seed);
  std::vector<std::string> words = Words(kChineseWords);
  std::mt19937 random(seed);
  for (size_t i = words.size() - 1; i > 0; --i) std::swap(words[i], words[random() % (i + 1)]);
  const std::vector<std::string> characters = Characters(kChineseCharacters);
  const std::vector<std::string> marks = Words(kPunctuation);
  std::string text;
  size_t left = 12;
  while (text.size() < bytes) {
    const std::string word = source.Chance(55) ? source.Zipf(words) : source.Zipf(characters);
    text += word;
    const size_t length = word.size() / 3;
    if (!punctuation || left > length) {
      left -= std::min(left, length);
      continue;
    }
    text += source.Any(marks);
    left = 6 + source.Below(25);
  }
  return text;
}

}  // namespace prism
