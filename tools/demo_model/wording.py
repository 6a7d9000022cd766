"""What people say: the questions of every task in many wordings, and the words that pictures print.

Templates are by language; {x} and {y} are things, {a} a thing with its article, {c} a colour, {r} a relation,
{p} a place, {k} a number. The trainer asks them all, so a newcomer's own wording is near one of them.
"""

ZH_COLOR_SHAPE = ("{c}{s}", "{c}的{s}", "{c}{s}", "{c}的{s}", "{c}{s}")
ZH_SHAPE_ASKED = {
    "circle": ("圆形", "圆形", "圆", "圆圈"),
    "square": ("正方形", "正方形", "方块"),
    "triangle": ("三角形",),
    "rectangle": ("长方形", "长方形", "矩形"),
    "star": ("星形", "星形", "五角星", "星星"),
    "diamond": ("菱形",),
    "cross": ("十字形", "十字形", "十字"),
    "ring": ("圆环", "圆环", "环形"),
    "heart": ("心形", "心形", "爱心"),
}
SHAPE_SINGLE = {
    "en": ("What shape is this?", "What shape is it?", "Which shape is shown?", "What shape do you see?",
           "Name the shape.", "What is the shape in the picture?", "Which shape is in the image?",
           "What kind of shape is this?", "Identify the shape.", "What figure is drawn here?",
           "What shape can you see in the picture?", "Tell me the shape.", "What shape did I draw?"),
    "zh": ("这是什么形状？", "图中是什么形状？", "图里是什么图形？", "这是什么图形？", "请说出图中的形状。", "图片里的形状是什么？", "你看到了什么形状？", "画的是什么形状？",
           "图中的图形是什么？", "这个图形叫什么？", "我画的是什么形状？"),
}
SHAPE_OF_COLOR = {
    "en": ("What shape is {c}?", "What shape is the {c} one?", "Which shape is {c}?",
           "What is the {c} shape?", "Name the {c} shape.", "What {c} shape do you see?",
           "What {c} shape is there?", "What shape is the {c} object?",
           "What is the shape of the {c} thing?", "The {c} shape is what?",
           "Which {c} shape is in the picture?", "Which of the shapes is {c}?"),
    "zh": ("{c}的是什么形状？", "什么形状是{c}的？", "{c}的图形是什么形状？", "哪个形状是{c}的？", "图中{c}的是什么？", "{c}图形是什么？",
           "图里{c}的是什么图形？", "说出{c}图形的形状。", "{c}的物体是什么形状？", "哪个图形是{c}的？"),
}
IS_THERE = {
    "en": ("Is there {a} in the picture?", "Is there {a}?", "Do you see {a}?", "Can you see {a}?",
           "Does the picture show {a}?", "Does the image contain {a}?", "Is {a} in the picture?",
           "Is there {a} here?", "Does {a} appear in the image?", "Can you find {a}?", "Is {a} shown?"),
    "zh": ("图里有{a}吗？", "图中有没有{a}？", "有{a}吗？", "你看到{a}了吗？", "图片里有{a}吗？", "图中是否有{a}？", "能看到{a}吗？", "这里有{a}吗？",
           "画面中有{a}吗？", "图上有没有{a}？"),
}
COLOR_SINGLE = {
    "en": ("What colour is it?", "What colour is the shape?", "What colour is this?",
           "Which colour is the shape?", "What is its colour?", "Name the colour.",
           "What is the colour of the shape?", "What colour do you see?", "What colour does the shape have?",
           "Tell me the colour of the shape.", "Which colour is it?"),
    "zh": ("它是什么颜色？", "这个图形是什么颜色？", "图形是什么颜色的？", "什么颜色？", "这是什么颜色？", "图中的形状是什么颜色？", "请说出图形的颜色。", "它的颜色是什么？",
           "图里的图形是什么颜色？", "形状的颜色是什么？"),
}
COLOR_OF = {
    "en": ("What colour is the {x}?", "Which colour is the {x}?", "What is the colour of the {x}?",
           "The {x} is what colour?", "Tell me the colour of the {x}.", "Name the colour of the {x}.",
           "What colour does the {x} have?", "In which colour is the {x} drawn?", "What colour is this {x}?",
           "What's the colour of the {x}?", "Which colour does the {x} have?"),
    "zh": ("{x}是什么颜色？", "{x}是什么颜色的？", "图中{x}的颜色是什么？", "{x}的颜色是什么？", "请说出{x}的颜色。", "{x}什么颜色？", "这个{x}是什么颜色？",
           "图里的{x}是什么颜色？", "那个{x}是什么颜色的？", "{x}是哪种颜色？"),
}
IS_COLOR = {
    "en": ("Is the {x} {c}?", "Is the {x} {c} in this picture?", "Does the {x} look {c}?",
           "Is the {x} of {c} colour?", "Is {c} the colour of the {x}?", "Would you say the {x} is {c}?",
           "Is it true that the {x} is {c}?", "Is the colour of the {x} {c}?", "The {x} is {c}, right?",
           "Is the {x} drawn in {c}?"),
    "zh": ("{x}是{c}的吗？", "{x}是{c}吗？", "图中的{x}是{c}的吗？", "{x}是不是{c}的？", "{x}的颜色是{c}吗？", "这个{x}是{c}的吗？",
           "图里的{x}是不是{c}？", "{x}是不是{c}？", "那个{x}是{c}的吗？", "图中{x}的颜色是不是{c}？"),
}
LARGEST = {
    "en": ("Which shape is the largest?", "Which shape is the biggest?", "What is the largest shape?",
           "What is the biggest thing in the picture?", "Which one is the largest?",
           "Name the largest shape.", "Which object is the biggest?", "What's the biggest shape?",
           "Find the largest shape.", "Which of the shapes is the largest?",
           "What is the biggest shape here?"),
    "zh": ("哪个图形最大？", "最大的图形是哪个？", "哪个形状最大？", "最大的是什么？", "图中最大的图形是什么？", "哪一个最大？", "图里什么最大？", "最大的形状是什么？",
           "请说出最大的图形。", "哪个物体最大？"),
}
SMALLEST = {
    "en": ("Which shape is the smallest?", "What is the smallest shape?", "Which one is the smallest?",
           "What is the smallest thing in the picture?", "Name the smallest shape.",
           "Which object is the smallest?", "What's the smallest shape?", "Find the smallest shape.",
           "Which of the shapes is the smallest?", "What is the smallest shape here?",
           "Which shape is the tiniest?"),
    "zh": ("哪个图形最小？", "最小的图形是哪个？", "哪个形状最小？", "最小的是什么？", "图中最小的图形是什么？", "哪一个最小？", "图里什么最小？", "最小的形状是什么？",
           "请说出最小的图形。", "哪个物体最小？"),
}
WHICH_BIGGER = {
    "en": ("Which is bigger, the {x} or the {y}?", "Which is larger, the {x} or the {y}?",
           "Which one is bigger: the {x} or the {y}?", "What is bigger, the {x} or the {y}?",
           "The {x} or the {y}: which is larger?", "Of the {x} and the {y}, which is bigger?",
           "Is the {x} or the {y} bigger?", "Is the {x} or the {y} larger?",
           "Compare the {x} with the {y}: which is bigger?", "Between the {x} and the {y}, which is larger?"),
    "zh": ("{x}和{y}哪个大？", "{x}和{y}哪个更大？", "{x}与{y}相比，哪个更大？", "哪个更大，{x}还是{y}？", "是{x}大还是{y}大？",
           "{x}和{y}，哪一个比较大？", "比较{x}和{y}，哪个大？", "{x}、{y}中哪个更大？", "{x}大还是{y}大？", "哪个大：{x}还是{y}？"),
}
WHICH_SMALLER = {
    "en": ("Which is smaller, the {x} or the {y}?", "Which one is smaller: the {x} or the {y}?",
           "What is smaller, the {x} or the {y}?", "The {x} or the {y}: which is smaller?",
           "Of the {x} and the {y}, which is smaller?", "Is the {x} or the {y} smaller?",
           "Between the {x} and the {y}, which is smaller?",
           "Compare the {x} with the {y}: which is smaller?",
           "Which has the smaller size, the {x} or the {y}?",
           "Which of the two is smaller, the {x} or the {y}?"),
    "zh": ("{x}和{y}哪个小？", "{x}和{y}哪个更小？", "{x}与{y}相比，哪个更小？", "哪个更小，{x}还是{y}？", "是{x}小还是{y}小？",
           "{x}和{y}，哪一个比较小？", "比较{x}和{y}，哪个小？", "{x}、{y}中哪个更小？", "{x}小还是{y}小？", "哪个小：{x}还是{y}？"),
}
SMALL_OR_BIG = {
    "en": ("Is the {x} small or big?", "Is the {x} big or small?", "Is the {x} large or small?",
           "How big is the {x}, big or small?", "Is the {x} small or large?",
           "What size is the {x}: big or small?", "Would you call the {x} big or small?",
           "Is the size of the {x} small or big?", "The {x}: big or small?",
           "What is the size of the {x}, small or big?"),
    "zh": ("{x}是大还是小？", "{x}大还是小？", "{x}的大小是大还是小？", "图中的{x}是大的还是小的？", "{x}是小的还是大的？", "这个{x}大还是小？",
           "{x}算大还是算小？", "{x}是大是小？", "图里的{x}大还是小？", "{x}的尺寸是大还是小？"),
}
COUNT = {
    "en": ("How many {x} are there?", "How many {x} are in the picture?", "How many {x} do you see?",
           "How many {x} can you see?", "Count the {x}.", "What is the number of {x}?", "How many {x}?",
           "How many {x} are shown?", "How many {x} does the picture show?",
           "Tell me how many {x} there are.", "Please count the {x}.", "How many {x} did I draw?",
           "What number of {x} is in the image?"),
    "zh": ("图里有几个{x}？", "图中有几个{x}？", "有几个{x}？", "有多少个{x}？", "图中有多少个{x}？", "数一数有几个{x}。", "一共有几个{x}？",
           "图片里有多少个{x}？", "请数出{x}的数量。", "你看到几个{x}？", "{x}有几个？", "画面中有几个{x}？"),
}
TEXT = {
    "en": ("What does the text say?", "What is written here?", "Read the text.",
           "What text is in the picture?", "What does it say?", "What is written in the picture?",
           "Which text do you see?", "Read this.", "What word or code is printed here?",
           "Transcribe the text.", "What is the text in the image?", "Please read the text in this image.",
           "What characters are shown?", "What letters do you see?"),
    "zh": ("图里写了什么？", "图中的文字是什么？", "上面写着什么？", "请读出图中的文字。", "图片里的文字是什么？", "写的是什么？", "读一下图里的文字。", "图中写着什么字？",
           "请识别图中的文字。", "这上面的字是什么？", "文字内容是什么？", "图片上写了什么？"),
}
TEXT_LENGTH = {
    "en": ("How many characters does the text have?", "How many characters are printed?",
           "How long is the text, in characters?", "Count the characters.",
           "How many characters do you see?"),
    "zh": ("图中的文字有几个字符？", "一共有几个字符？", "文字有多少个字符？", "数一数有几个字符。", "这串文字有几个字符？"),
}
WORDS = (
    "cat dog sun sky red blue tree fish bird star moon rain snow fire book door home road ship lamp gold "
    "hand foot blog menu wolf bear lion duck frog king queen apple bread chair table house river stone cloud "
    "light night green white black brown water plant happy smile music party robot prism train plane truck "
    "pizza lemon mango grape sugar coffee cheese orange yellow purple silver garden window summer winter "
    "spring autumn planet rocket camera pencil school market doctor friend family animal flower island "
    "bridge castle dragon forest hello world open closed exit stop push pull sale free taxi hotel bank shop "
    "cafe bus zoo park map key box cup hat pen egg ice jam toy van web yes no on off up go ok hi the and "
    "computer keyboard language mountain elephant sandwich birthday football hospital airplane notebook "
    "picture number letter circle square test demo data code model image vision token cache page shard "
    "north south east west left right first last seven eight three hundred thanks welcome danger caution "
    "private public office kitchen").split()
TEXT_JSON = {
    "en": ("Read the text and answer in JSON.", "Give the text as JSON.",
           "Answer in JSON: what does the text say?", "What is written here? Answer in JSON.",
           "Output the text as JSON."),
    "zh": ("读出文字，用JSON回答。", "用JSON给出图中的文字。", "用JSON回答：图里写了什么？", "以JSON格式输出文字。", "上面写着什么？用JSON回答。"),
}
TEXT_PART = {
    "en": {
              True: ("What is the first character?", "Which character comes first?",
                     "What does the text start with?", "Give the first character of the text."),
              False: ("What is the last character?", "Which character comes last?",
                      "What does the text end with?", "Give the last character of the text."),
          },
    "zh": {
              True: ("第一个字符是什么？", "首个字符是什么？", "文字以什么开头？", "请说出第一个字符。"),
              False: ("最后一个字符是什么？", "末尾的字符是什么？", "文字以什么结尾？", "请说出最后一个字符。"),
          },
}
LINE = {
    "en": ("What does line {k} say?", "Read line {k}.", "What is written in line {k}?",
           "What is the text in line {k}?", "What does the {o} line say?", "Read the {o} line.",
           "What is written in the {o} line?"),
    "zh": ("第{k}行写了什么？", "请读出第{k}行。", "第{k}行的文字是什么？", "读一下第{k}行。", "第{z}行写着什么？", "第{z}行是什么文字？"),
}
LINES = {
    "en": ("How many lines of text are there?", "How many lines do you see?", "Count the lines of text."),
    "zh": ("有几行文字？", "图中有多少行文字？", "数一数有几行。"),
}
WHERE = {
    "en": ("Where is the {x}?", "Where is the {x} in the picture?", "Where do you see the {x}?",
           "Where can I find the {x}?", "In which part of the picture is the {x}?",
           "Where is the {x} located?", "What is the position of the {x}?",
           "Which part of the image shows the {x}?", "Tell me where the {x} is.",
           "Where in the image is the {x}?", "Whereabouts is the {x}?"),
    "zh": ("{x}在哪里？", "{x}在哪儿？", "{x}在图中的什么位置？", "{x}位于哪里？", "图中的{x}在什么位置？", "{x}在图的哪个部分？", "请说出{x}的位置。",
           "{x}在什么地方？", "图里的{x}在哪里？", "{x}在画面的哪个位置？"),
}
WHAT_AT = {
    "en": ("What is {p}?", "What do you see {p}?", "Which shape is {p}?", "What is {p} of the picture?",
           "What can you see {p}?", "What is drawn {p}?", "Which object is {p}?", "What shape is {p}?",
           "Name the thing {p}.", "What's {p}?"),
    "zh": ("{p}是什么？", "{p}有什么？", "图的{p}是什么？", "图中{p}是什么图形？", "{p}的图形是什么？", "图片{p}有什么？", "你在{p}看到了什么？",
           "{p}画的是什么？", "位于{p}的是什么？", "{p}是哪个图形？"),
}
PLACE_PHRASES = {
    "top left": ("at the top left", "左上角"),
    "top": ("at the top", "上方"),
    "top right": ("at the top right", "右上角"),
    "left": ("on the left", "左边"),
    "center": ("in the center", "中间"),
    "right": ("on the right", "右边"),
    "bottom left": ("at the bottom left", "左下角"),
    "bottom": ("at the bottom", "下方"),
    "bottom right": ("at the bottom right", "右下角"),
}
RELATION = {
    "en": ("Where is the {x} relative to the {y}?", "Where is the {x} compared to the {y}?",
           "Where is the {x}, seen from the {y}?", "How does the {x} lie relative to the {y}?",
           "In which direction from the {y} is the {x}?", "Where is the {x} with respect to the {y}?",
           "On which side of the {y} is the {x}?", "What is the position of the {x} relative to the {y}?",
           "Relative to the {y}, where is the {x}?", "Where does the {x} lie in relation to the {y}?"),
    "zh": ("{x}在{y}的哪边？", "{x}在{y}的什么方向？", "{x}相对于{y}在哪里？", "{x}位于{y}的哪个方向？", "{x}在{y}的什么位置？",
           "相对于{y}，{x}在哪里？", "{x}在{y}的哪一侧？", "从{y}看，{x}在哪个方向？", "{x}在{y}的哪个方位？", "以{y}为参照，{x}在哪边？"),
}
EITHER = {
    "en": {
              True: ("Is the {x} to the left or to the right of the {y}?",
                     "Is the {x} left or right of the {y}?",
                     "Left or right: where is the {x} relative to the {y}?",
                     "Does the {x} lie to the left or to the right of the {y}?"),
              False: ("Is the {x} above or below the {y}?",
                      "Above or below: where is the {x} relative to the {y}?",
                      "Does the {x} lie above or below the {y}?", "Is the {x} over or under the {y}?"),
          },
    "zh": {
              True: ("{x}在{y}的左边还是右边？", "{x}是在{y}的左边还是右边？", "{x}位于{y}的左侧还是右侧？"),
              False: ("{x}在{y}的上面还是下面？", "{x}是在{y}的上方还是下方？", "{x}位于{y}的上面还是下面？"),
          },
}
RELATION_PHRASES = {
    "left": (("to the left of", "left of", "on the left of", "on the left side of"), ("左边", "左侧")),
    "right": (("to the right of", "right of", "on the right of", "on the right side of"), ("右边", "右侧")),
    "above": (("above", "above", "over", "on top of"), ("上面", "上方")),
    "below": (("below", "below", "under", "beneath"), ("下面", "下方")),
}
IS_RELATION = {
    "en": ("Is the {x} {r} the {y}?", "Is the {x} {r} the {y} in this picture?",
           "Does the {x} lie {r} the {y}?", "Is it true that the {x} is {r} the {y}?",
           "Do you see the {x} {r} the {y}?", "The {x} is {r} the {y}, right?",
           "Would you say the {x} is {r} the {y}?"),
    "zh": ("{x}在{y}的{r}吗？", "{x}是在{y}{r}吗？", "{x}是不是在{y}的{r}？", "图中{x}在{y}的{r}吗？", "{x}位于{y}的{r}吗？"),
}
WHAT_RELATION = {
    "en": ("What is {r} the {y}?", "Which shape is {r} the {y}?", "What do you see {r} the {y}?",
           "Which object is {r} the {y}?", "What lies {r} the {y}?", "What can be seen {r} the {y}?",
           "What's {r} the {y}?"),
    "zh": ("{y}的{r}是什么？", "{y}{r}有什么？", "什么在{y}的{r}？", "哪个图形在{y}的{r}？", "位于{y}{r}的是什么？"),
}
BOX = {
    "en": ("Where is the {x}? Answer with its bounding box as JSON.",
           "Give the bounding box of the {x} as JSON.", "Locate the {x} and output its bbox in JSON.",
           "Detect the {x}. Output JSON.", "Find the {x} and report its bbox coordinates in JSON format.",
           "Return the bounding box of the {x}.", "Locate the {x}, output the bbox_2d coordinates in JSON.",
           "Box the {x} as JSON.", "What is the bounding box of the {x}?",
           "Ground the {x}: give bbox_2d and label.", "Where is the {x} as JSON?",
           "Show me the box around the {x} in JSON."),
    "zh": ("{x}在哪里？请用JSON给出边界框。", "请用JSON给出{x}的边界框。", "定位{x}，以JSON格式输出bbox。", "检测{x}，输出JSON。",
           "找出{x}并以JSON格式给出坐标。", "返回{x}的边界框。", "{x}的边界框是什么？", "定位图中的{x}，输出bbox_2d坐标。", "框出{x}，用JSON回答。",
           "请给出{x}的bbox_2d和label。", "用JSON格式给出{x}的位置坐标。"),
}
DESCRIBE = {
    "en": ("What do you see?", "What is in the picture?", "What's in the picture?", "What is this?",
           "What does the picture show?", "What can you see?", "What is shown here?",
           "What's in this image?", "What do you see in this image?", "What is in the image?",
           "Tell me what you see.", "What did I draw?", "What's this?", "List what you see."),
    "zh": ("你看到了什么？", "图里有什么？", "图中有什么？", "这是什么？", "图片里有什么？", "图上画了什么？", "这张图显示了什么？", "图中都有什么？", "画面里有什么？",
           "说说你看到了什么。", "我画了什么？", "图里都有哪些图形？"),
}
DESCRIBE_FULL = {
    "en": ("Describe the picture.", "Describe this image.", "Please describe the picture.",
           "Describe what you see.", "Describe the image in two sentences.",
           "Give a description of the picture.", "Can you describe this picture?",
           "Describe the image in one or two sentences.", "Describe this.",
           "Write a short description of the image.", "Describe the picture in detail."),
    "zh": ("描述这张图片。", "请描述这张图。", "描述一下这张图片。", "请描述图片的内容。", "用一两句话描述这张图。", "用两句话描述图片。", "你能描述这张图吗？",
           "请详细描述这张图片。", "描述图中的内容。", "写一段简短的图片描述。"),
}
JSON_LIST = {
    "en": ("List the shapes from left to right as JSON.", "Describe the shapes in JSON.",
           "List all shapes with their colours as JSON.", "Answer in JSON: which shapes are in the picture?",
           "Output the shapes and colours as JSON.", "Give me a JSON list of the shapes, left to right.",
           "What shapes do you see? Answer in JSON.", "Return JSON with shape and colour of each object.",
           "What do you see? Answer in JSON.", "Write the shapes of this picture as JSON.",
           "Give the shapes in JSON format."),
    "zh": ("从左到右用JSON列出图形。", "用JSON描述图中的图形。", "用JSON列出所有图形和颜色。", "用JSON回答：图中有哪些图形？", "以JSON格式输出图形和颜色。",
           "请给出图形的JSON列表，从左到右。", "你看到了哪些图形？用JSON回答。", "返回每个图形的形状和颜色，JSON格式。", "图里有什么？用JSON回答。",
           "请以JSON格式给出图中的图形。"),
}
JSON_COUNTS = {
    "en": ("Count each kind of shape and answer in JSON.",
           "How many of each shape are there? Answer in JSON.", "Count the shapes by kind. Output JSON.",
           "Give the number of each shape as JSON.", "Return a JSON object with the count of each shape.",
           "Count every shape; answer as JSON.", "As JSON: how many of each shape?",
           "Output the shape counts as JSON.", "Give me the counts of the shapes in JSON format.",
           "Tally the shapes as JSON."),
    "zh": ("数出每种图形的数量，用JSON回答。", "每种图形各有几个？用JSON回答。", "按形状计数，输出JSON。", "用JSON给出每种图形的数量。", "返回每种图形数量的JSON。",
           "统计各种图形的个数，用JSON回答。", "以JSON格式输出图形的数量。", "各种形状分别有多少个？用JSON回答。", "请用JSON统计图形数量。",
           "JSON回答：每种图形有几个？"),
}
LABEL_SETS = (("A", "B", "C", "D", "E", "F", "G", "H"), ("A", "B", "C", "D", "E", "F"),
 ("Q1", "Q2", "Q3", "Q4"), ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
 ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
 ("2019", "2020", "2021", "2022", "2023", "2024", "2025"), ("X", "Y", "Z"),
 ("cat", "dog", "fish", "bird", "cow", "pig"), ("Tea", "Milk", "Beer", "Cola", "Wine"))
TITLES = ("Sales", "Visits", "Rain", "Points", "Votes", "Units")
TALLEST = {
    "en": ("Which bar is the tallest?", "Which bar is the highest?", "Which has the highest value?",
           "Which label has the tallest bar?", "What is the tallest bar?",
           "Which one has the largest value?", "Which category is the highest?",
           "Which bar has the greatest value?", "Name the tallest bar.", "Where is the maximum?",
           "Which one is the biggest in the chart?"),
    "zh": ("哪个柱子最高？", "哪一个最高？", "最高的柱子是哪个？", "哪个的数值最大？", "哪一项最大？", "哪个类别的值最高？", "图中最高的柱子是什么？", "最大值是哪一项？",
           "哪根柱子最高？", "请说出最高的柱子。"),
}
SHORTEST = {
    "en": ("Which bar is the shortest?", "Which bar is the lowest?", "Which has the lowest value?",
           "Which label has the shortest bar?", "What is the shortest bar?",
           "Which one has the smallest value?", "Which category is the lowest?",
           "Which bar has the least value?", "Name the shortest bar.", "Where is the minimum?",
           "Which one is the smallest in the chart?"),
    "zh": ("哪个柱子最矮？", "哪一个最低？", "最矮的柱子是哪个？", "哪个的数值最小？", "哪一项最小？", "哪个类别的值最低？", "图中最矮的柱子是什么？", "最小值是哪一项？",
           "哪根柱子最短？", "请说出最矮的柱子。"),
}
VALUE = {
    "en": ("What is the value of {x}?", "What value does {x} have?", "How high is {x}?", "How much is {x}?",
           "What is the value of the bar {x}?", "Read the value of {x}.", "What number does {x} reach?",
           "How tall is the bar {x}?", "Give the value for {x}.", "What does the bar {x} show?"),
    "zh": ("{x}的值是多少？", "{x}是多少？", "{x}的数值是多少？", "{x}有多高？", "柱子{x}的值是多少？", "请读出{x}的值。", "{x}对应的数值是多少？",
           "{x}达到多少？", "图中{x}的值是多少？", "{x}的数据是多少？"),
}
HIGHEST_VALUE = {
    "en": ("What is the highest value?", "What is the largest value in the chart?",
           "What is the maximum value?", "How high is the tallest bar?",
           "What value does the tallest bar have?"),
    "zh": ("最大值是多少？", "图中最大的数值是多少？", "最高的柱子的值是多少？", "最高值是多少？", "最高的柱子有多高？"),
}
TREND = {
    "en": ("What is the trend?", "Do the bars rise or fall from left to right?",
           "How do the values develop?", "Is the trend rising or falling?", "Describe the trend.",
           "Are the values rising or falling?", "Do the values go up or down?",
           "What trend does the chart show?", "Which way do the bars go?",
           "How do the bars change from left to right?"),
    "zh": ("趋势是什么？", "柱子从左到右是上升还是下降？", "数值怎样变化？", "趋势是上升还是下降？", "描述一下趋势。", "数值是在上升还是下降？", "图表显示了什么趋势？",
           "从左到右数值如何变化？", "整体趋势如何？", "柱状图的走势是什么？"),
}
BARS = {
    "en": ("How many bars are there?", "How many bars does the chart have?", "Count the bars.",
           "How many bars do you see?", "What is the number of bars?", "How many bars are in the chart?"),
    "zh": ("有几个柱子？", "图中有几根柱子？", "一共有多少个柱子？", "数一数有几个柱子。", "柱状图有几根柱子？", "有多少根柱子？"),
}
HIGHER_OF = {
    "en": ("Which is higher, {x} or {y}?", "Which bar is taller, {x} or {y}?", "Is {x} or {y} higher?",
           "Which has the larger value, {x} or {y}?", "Which is greater: {x} or {y}?",
           "{x} or {y}: which is higher?"),
    "zh": ("{x}和{y}哪个高？", "{x}和{y}哪个更高？", "哪个更高，{x}还是{y}？", "{x}和{y}哪个数值更大？", "是{x}高还是{y}高？", "{x}与{y}哪个大？"),
}
CHART_JSON = {
    "en": ("Give the values of the chart as JSON.", "Answer in JSON: what are the values of the bars?",
           "Output the chart's data as JSON.", "Read the bars and answer in JSON.",
           "Return the data as JSON."),
    "zh": ("用JSON给出图表的数值。", "用JSON回答：每个柱子的值是多少？", "以JSON格式输出图表数据。", "读出柱状图的数据，用JSON回答。", "用JSON返回数据。"),
}
MORE = {
    "en": ("Which picture has more {x}?", "Which image has more {x}?", "Which picture shows more {x}?",
           "In which picture are there more {x}?", "Where are more {x}: picture 1 or picture 2?",
           "Which of the two pictures has more {x}?", "Which one has more {x}?",
           "Which picture contains more {x}?", "Are there more {x} in picture 1 or in picture 2?",
           "Compare the pictures: which has more {x}?"),
    "zh": ("哪张图里的{x}更多？", "哪一张图的{x}多？", "哪张图有更多的{x}？", "两张图中哪张{x}更多？", "哪张图片的{x}比较多？", "第几张图的{x}更多？",
           "{x}更多的是哪张图？", "哪幅图里{x}更多？", "比较两张图，哪张的{x}更多？", "第1张和第2张图，哪张的{x}更多？"),
}
FEWER = {
    "en": ("Which picture has fewer {x}?", "Which image has fewer {x}?", "Which picture shows fewer {x}?",
           "In which picture are there fewer {x}?", "Which of the two pictures has fewer {x}?",
           "Which one has fewer {x}?", "Which picture contains fewer {x}?",
           "Are there fewer {x} in picture 1 or in picture 2?"),
    "zh": ("哪张图里的{x}更少？", "哪一张图的{x}少？", "两张图中哪张{x}更少？", "哪张图片的{x}比较少？", "第几张图的{x}更少？", "{x}更少的是哪张图？",
           "哪幅图里{x}更少？", "比较两张图，哪张的{x}更少？"),
}
MOST = {
    "en": ("Which picture has the most {x}?", "Which image has the most {x}?",
           "Which picture shows the most {x}?", "In which picture are there the most {x}?",
           "Which of the pictures has the most {x}?", "Where are the most {x}?",
           "Which one has the most {x}?", "Which picture contains the most {x}?",
           "Find the picture with the most {x}.", "Compare the pictures: which has the most {x}?"),
    "zh": ("哪张图里的{x}最多？", "哪一张图的{x}最多？", "哪张图有最多的{x}？", "这些图中哪张{x}最多？", "哪张图片的{x}最多？", "第几张图的{x}最多？",
           "{x}最多的是哪张图？", "哪幅图里{x}最多？", "比较这些图，哪张的{x}最多？", "找出{x}最多的图。"),
}
FEWEST = {
    "en": ("Which picture has the fewest {x}?", "Which image has the fewest {x}?",
           "Which picture shows the fewest {x}?", "In which picture are there the fewest {x}?",
           "Which of the pictures has the fewest {x}?", "Which one has the fewest {x}?",
           "Find the picture with the fewest {x}."),
    "zh": ("哪张图里的{x}最少？", "哪一张图的{x}最少？", "这些图中哪张{x}最少？", "哪张图片的{x}最少？", "第几张图的{x}最少？", "{x}最少的是哪张图？",
           "找出{x}最少的图。"),
}
WHICH_SHOWS = {
    "en": ("Which picture shows {a}?", "Which image shows {a}?", "In which picture is there {a}?",
           "Which picture has {a}?", "Which picture contains {a}?", "Where is {a}: in which picture?",
           "Which of the pictures shows {a}?", "Find the picture with {a}.",
           "In which image do you see {a}?", "Which one shows {a}?"),
    "zh": ("哪张图里有{x}？", "哪一张图有{x}？", "哪张图片显示了{x}？", "{x}在哪张图里？", "第几张图有{x}？", "哪幅图中有{x}？", "找出有{x}的图。",
           "哪张图包含{x}？", "{x}出现在第几张图里？", "这些图中哪张有{x}？"),
}
COUNT_IN = {
    "en": ("How many {x} are in picture {k}?", "How many {x} does picture {k} show?",
           "Count the {x} in picture {k}.", "How many {x} do you see in image {k}?",
           "In picture {k}, how many {x} are there?"),
    "zh": ("第{k}张图里有几个{x}？", "第{k}张图有多少个{x}？", "数一数第{k}张图里的{x}。", "图{k}中有几个{x}？", "第{k}张图片里有几个{x}？"),
}
CHANGED = {
    "en": ("What changed?", "What changed between the two pictures?",
           "What is the difference between the pictures?", "What is different in the second picture?",
           "What has changed from picture 1 to picture 2?", "Find the difference.",
           "How do the two pictures differ?", "What's the difference?",
           "Compare the two pictures. What changed?", "Spot the difference.",
           "Which change do you see?"),
    "zh": ("有什么变化？", "两张图之间有什么变化？", "两张图有什么不同？", "第二张图有什么不同？", "从第一张到第二张发生了什么变化？", "找出不同之处。", "两张图片有什么区别？",
           "什么改变了？", "比较两张图，有什么变化？", "有什么区别？"),
}
SAME = {
    "en": ("Are the two pictures the same?", "Do both pictures show the same?", "Are these pictures equal?",
           "Are the pictures identical?", "Is the second picture the same as the first?"),
    "zh": ("两张图一样吗？", "两张图片相同吗？", "这两张图是一样的吗？", "第二张图和第一张一样吗？", "两张图是否相同？"),
}
DIRECTION = {
    "en": ("Which way does the {x} move?", "In which direction does the {x} move?", "Where does the {x} go?",
           "Which direction is the {x} moving?", "Does the {x} move left, right, up or down?",
           "Where is the {x} moving to?", "What is the direction of the {x}?", "Which way is the {x} going?",
           "To which side does the {x} move?", "How does the {x} move?", "What way does the {x} travel?"),
    "zh": ("{x}往哪个方向移动？", "{x}向哪边移动？", "{x}朝哪个方向运动？", "{x}往哪里移动？", "{x}是怎么移动的？", "{x}向哪个方向走？",
           "视频中{x}往哪边移动？", "{x}的运动方向是什么？", "{x}向左、向右、向上还是向下移动？", "{x}往哪儿走？"),
}
WHAT_MOVES = {
    "en": ("What moves?", "What is moving?", "Which shape moves?", "Which object is moving?",
           "What moves in the video?", "What is moving in this clip?", "Which thing moves?",
           "Name what moves.", "Which of the shapes is moving?", "What changes its place?"),
    "zh": ("什么在移动？", "哪个图形在移动？", "视频里什么在动？", "哪个物体在移动？", "什么在动？", "移动的是什么？", "哪个图形在动？", "请说出移动的图形。",
           "视频中移动的图形是什么？", "什么改变了位置？"),
}
CLIP_DESCRIBE = {
    "en": ("What happens in the video?", "What happens?", "Describe the clip.", "Describe the video.",
           "What happens in this clip?", "What do you see in the video?", "Tell me what happens.",
           "What is going on?", "Summarize the video.", "What does the clip show?"),
    "zh": ("视频里发生了什么？", "发生了什么？", "描述这个视频。", "请描述这段视频。", "视频中有什么动作？", "你在视频里看到了什么？", "说说发生了什么。",
           "这段视频显示了什么？", "描述一下视频内容。", "视频讲了什么？"),
}
TALK = {
    "greeting": {
                    "en": (("Hello", "Hi", "Hello!", "Hi there", "Hey", "Good morning", "Good evening",
                            "Hi!", "Hello there!", "Hey there", "Good afternoon!", "Greetings",
                            "How are you?", "Hello, how are you?"),
                           "Hello! Send me a picture and ask me about it."),
                    "zh": (("你好", "您好", "你好！", "嗨", "早上好", "晚上好", "下午好", "哈喽", "你好啊", "大家好", "你好吗？", "嗨！"),
                           "你好！请发一张图片，然后问我。"),
                },
    "abilities": {
                     "en": (("What can you do?", "What are you able to do?", "Help", "How can you help me?",
                             "What do you know?", "What are your abilities?", "What can I ask you?",
                             "What can you do for me?", "Tell me what you can do.", "How do you work?",
                             "help me", "What questions can you answer?"),
                            "I can name shapes and colours, count, find things, read short text and bar charts, "
               "and compare pictures."),
                     "zh": (("你能做什么？", "你会什么？", "你可以做什么？", "帮助", "你有什么功能？", "我可以问你什么？", "你能帮我做什么？", "你会做什么？",
                             "你能回答什么问题？", "介绍一下你的功能。", "怎么用？"),
                            "我能说出形状和颜色，数数，找东西，读短文字和柱状图，还能比较图片。"),
                 },
    "identity": {
                    "en": (("Who are you?", "What are you?", "What is your name?", "Are you a model?",
                            "Introduce yourself.", "Tell me about yourself.", "Which model are you?",
                            "What's your name?", "Who made you?", "Are you human?", "Are you ChatGPT?"),
                           "I am the small demo model of Prism. I know shapes, bar charts and short text."),
                    "zh": (("你是谁？", "你是什么？", "你叫什么名字？", "你是什么模型？", "介绍一下你自己。", "请自我介绍。", "你的名字是什么？", "你是人吗？",
                            "谁做了你？", "你是机器人吗？"),
                           "我是Prism的小型演示模型。我认识形状、柱状图和短文字。"),
                },
    "thanks": {
                  "en": (("Thanks", "Thank you", "Thank you!", "Thanks a lot", "Thanks!",
                          "Thank you very much", "Great, thanks", "Many thanks", "Cheers", "Well done",
                          "Good job"),
                         "You are welcome!"),
                  "zh": (("谢谢", "谢谢你", "多谢", "非常感谢", "谢谢！", "感谢", "谢了", "好的，谢谢", "太好了，谢谢", "辛苦了"), "不客气！"),
              },
    "goodbye": {
                   "en": (("Bye", "Goodbye", "See you", "Good bye!", "Bye bye", "See you later",
                           "Good night", "Farewell", "bye!", "See you soon"),
                          "Goodbye!"),
                   "zh": (("再见", "拜拜", "再见！", "回头见", "晚安", "下次见", "明天见", "我走了", "告辞", "拜"), "再见！"),
               },
}
SUM = {
    "en": ("What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} = ?", "{a}+{b}", "{a}+{b}=",
           "How much is {a} + {b}?", "Add {a} and {b}.", "Compute {a} + {b}.", "What's {a} plus {b}?",
           "Can you add {a} and {b}?", "How much is {a} plus {b}?", "What do {a} and {b} make?",
           "{a} plus {b}", "What is the sum of {a} and {b}?"),
    "zh": ("{a}+{b}等于几？", "{a}加{b}等于多少？", "{a}+{b}=?", "{a}加{b}是多少？", "计算{a}+{b}。", "{a}加上{b}等于几？",
           "{a}+{b}是几？", "请算{a}+{b}。", "{a}和{b}的和是多少？", "{a}加{b}等于几？"),
}
