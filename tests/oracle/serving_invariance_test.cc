// What one request is answered does not depend on what it is served with: bit for bit the same sampled ids
// and log-probabilities of the best 20, alone and in batches whose members come, are prefilled and go, its
// prompt whole or in chunks, on pages of an earlier request, resumed, on 1, 2 and 4 ranks (docs/numerics.md).
//
// A prompt of 300 tokens around a picture, 128 tokens at temperature 1 with a seed; steps go the way of
// service: through RankGroup, recorded where that pays, sampled where the logits are. Micro models, and on a
// device with room for it the full-size 30B-A3B with synthetic weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>

#include "common/base/status.h"
#include "kernels/backends/create_backend.h"
#include "services/decoder/engine/rank_group.h"
#include "services/decoder/kv/page.h"
#include "services/decoder/sampling/logprobs.h"
#include "services/decoder/sampling/sampler.h"
#include "services/decoder/sched/positions.h"
#include "services/vision_encoder/model/vision_model.h"
#include "tests/oracle/backend_under_test.h"
#include "tests/oracle/oracle_case.h"

namespace prism {
namespace {

constexpr int64_t kRowsMax = 2048, kSequencesMax = 256, kPagesMax = 16, kPages = 1600;
constexpr int64_t kTextTokens = 300;
constexpr int64_t kWhole = 1 << 30;
constexpr int kBest = 20;
// Steps between arrivals: those between only generate, and are recorded.
constexpr int kArrivalSteps = 4;

struct Request {
  std::vector<int32_t> ids;  // prompt, then answer
  std::vector<VisualSpan> spans;
  const PulledEmbedding* picture = nullptr;
  uint64_t seed = 0;
  int64_t wanted = 0;  // tokens of answer
  int64_t chunk = kWhole;
  // Kept by the server.
  int64_t computed = 0;
  std::vector<int32_t> pages;
  std::vector<RowSample> answer;

  int64_t left() const { return static_cast<int64_t>(ids.size()) - computed; }
  bool done() const { return static_cast<int64_t>(answer.size()) >= wanted; }
};

// Steps of requests on a group of ranks.
class Server {
 public:
  static absl::StatusOr<std::unique_ptr<Server>> Create(Backend& backend, const Checkpoint& checkpoint,
                                                        int num_ranks) {
    PRISM_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Communicator>> comms,
                           CreateGroup(backend, 0, num_ranks));
    std::vector<RankOptions> options;
    for (int rank = 0; rank < num_ranks; ++rank) {
      options.push_back({.stream = {.device_index = backend.has_device_memory() ? rank : 0},
                         .kv_pages = kPages,
                         .rows_max = kRowsMax,
                         .sequences_max = kSequencesMax,
                         .pages_max = kPagesMax,
                         .logit_rows_max = kSequencesMax});
    }
    auto server = std::make_unique<Server>();
    PRISM_ASSIGN_OR_RETURN(server->group_, RankGroup::Load(backend, checkpoint, std::move(comms), options));
    for (int32_t page = 0; page < kPages; ++page) server->free_.push_back(page);
    std::shuffle(server->free_.begin(), server->free_.end(), std::mt19937(3));
    return server;
  }

  // Computes `count` more tokens of each; those that have then caught up get their next one.
  absl::Status Step(const std::vector<std::pair<Request*, int64_t>>& work) {
    const StepPlan plan = Plan(work);
    std::vector<VisualRowSource> visual;
    std::vector<std::optional<RowSampling>> wishes;
    std::vector<Request*> sampled;
    size_t next = 0;
    for (const auto& [request, count] : work) {
      for (; next < plan.visual_runs.size() &&
             plan.visual_runs[next].first_row < plan.query_starts[Place(work, request) + 1];
           ++next) {
        const VisualRun& run = plan.visual_runs[next];
        visual.push_back({.embedding = request->picture,
                          .first_embedding_row = run.first_embedding_row,
                          .first_row = run.first_row,
                          .count = run.count});
      }
      if (request->left() > 0) continue;
      sampled.push_back(request);
      wishes.push_back(RowSampling{.temperature = 1,
                                   .seed = request->seed,
                                   .token_index = static_cast<uint32_t>(request->answer.size()),
                                   .with_log_sum_exp = true,
                                   .num_top = kBest});
    }
    const bool on_device = group_->can_sample() && !wishes.empty();
    if (on_device) group_->SampleNext(wishes);
    group_->Start(plan, visual);
    while (!group_->WaitUntil(std::chrono::steady_clock::now() + std::chrono::seconds(1))) {
    }
    PRISM_ASSIGN_OR_RETURN(const TensorView logits, group_->logits());
    for (size_t row = 0; row < sampled.size(); ++row) {
      PRISM_ASSIGN_OR_RETURN(
          const RowSample sample,
          on_device ? absl::StatusOr<RowSample>(group_->samples()[row])
                    : SampleOnHost(logits.Rows(static_cast<int64_t>(row), 1).span<float>(), *wishes[row]));
      if (sample.non_finite_id >= 0) return absl::InternalError("a logit is not finite");
      sampled[row]->answer.push_back(sample);
      sampled[row]->ids.push_back(sample.token_id);
    }
    return absl::OkStatus();
  }

  // `to` goes on from the first `count` pages of `from`, which both then hold.
  void Share(const Request& from, size_t count, Request& to) {
    for (size_t i = 0; i < count; ++i) {
      ++holders_[from.pages[i]];
      to.pages.push_back(from.pages[i]);
    }
    to.computed = static_cast<int64_t>(count) * kTokensPerPage;
  }

  void Free(Request& request) {
    for (const int32_t page : request.pages) {
      if (--holders_[page] == 0) free_.push_back(page);
    }
    request.pages.clear();
    request.computed = 0;
  }

 private:
  static size_t Place(const std::vector<std::pair<Request*, int64_t>>& work, const Request* request) {
    return static_cast<size_t>(
        std::find_if(work.begin(), work.end(), [&](const auto& w) { return w.first == request; }) -
        work.begin());
  }

  static absl::StatusOr<RowSample> SampleOnHost(absl::Span<const float> logits, const RowSampling& wish) {
    SamplingScratch scratch;
    Sampler sampler({.temperature = wish.temperature, .seed = wish.seed}, wish.choice, {});
    for (uint32_t i = 0; i < wish.token_index; ++i) sampler.Accept(0);
    RowSample sample;
    PRISM_ASSIGN_OR_RETURN(sample.token_id, sampler.Sample(logits, scratch));
    sample.logit = logits[static_cast<size_t>(sample.token_id)];
    sample.log_sum_exp = LogSumExp(logits);
    for (const TokenProbability& token : TopLogprobs(logits, sample.log_sum_exp, wish.num_top)) {
      sample.top[static_cast<size_t>(sample.num_top++)] = {token.token_id,
                                                           logits[static_cast<size_t>(token.token_id)]};
    }
    return sample;
  }

  StepPlan Plan(const std::vector<std::pair<Request*, int64_t>>& work) {
    StepPlan plan;
    std::vector<Position> positions;
    for (const auto& [request, count] : work) {
      Request& r = *request;
      const int64_t begin = r.computed, end = begin + count;
      while (static_cast<int64_t>(r.pages.size()) < PagesFor(end)) {
        PRISM_CHECK(!free_.empty());
        r.pages.push_back(free_.back());
        holders_[free_.back()] = 1;
        free_.pop_back();
      }
      plan.page_table_width = std::max(plan.page_table_width, static_cast<int64_t>(r.pages.size()));
      const auto first_row = static_cast<int64_t>(plan.token_ids.size());
      plan.query_starts.push_back(static_cast<int32_t>(first_row));
      plan.context_lengths.push_back(static_cast<int32_t>(end));
      const PromptPositions walk = WalkPositions(static_cast<int64_t>(r.ids.size()), r.spans);
      for (int64_t i = begin; i < end; ++i) {
        plan.token_ids.push_back(r.ids[static_cast<size_t>(i)]);
        positions.push_back(walk.positions[static_cast<size_t>(i)]);
        plan.slots.push_back(static_cast<int32_t>(
            r.pages[static_cast<size_t>(i / kTokensPerPage)] * kTokensPerPage + i % kTokensPerPage));
      }
      for (const VisualSpan& span : r.spans) {
        const int64_t from = std::max(begin, span.offset), to = std::min(end, span.offset + span.num_tokens);
        if (from >= to) continue;
        plan.visual_runs.push_back({.first_embedding_row = from - span.offset,
                                    .first_row = first_row + from - begin,
                                    .count = to - from});
        plan.num_visual_rows += to - from;
      }
      r.computed = end;
      if (r.left() == 0) plan.logit_rows.push_back(static_cast<int32_t>(plan.token_ids.size()) - 1);
      plan.sequences.push_back({.id = plan.sequences.size() + 1,
                                .begin = begin,
                                .count = count,
                                .first_row = first_row,
                                .first_logit = static_cast<int64_t>(plan.logit_rows.size()) - (r.left() == 0),
                                .num_logits = r.left() == 0});
    }
    plan.query_starts.push_back(static_cast<int32_t>(plan.token_ids.size()));
    for (const auto& [request, count] : work) {
      plan.page_tables.insert(plan.page_tables.end(), request->pages.begin(), request->pages.end());
      plan.page_tables.resize(plan.page_tables.size() + static_cast<size_t>(plan.page_table_width) -
                              request->pages.size());
    }
    for (size_t axis = 0; axis < 3; ++axis) {
      for (const Position& position : positions) plan.positions.push_back(position[axis]);
    }
    return plan;
  }

  std::unique_ptr<RankGroup> group_;
  std::vector<int32_t> free_;
  std::map<int32_t, int> holders_;  // of pages that are not free
};

// The other members of a batch: each of a prompt and an answer of its own lengths, and another in its place
// when it is done.
class Company {
 public:
  Company(Server* server, int size) : server_(*server), members_(static_cast<size_t>(size)) {
    for (Request& member : members_) member = Newcomer();
  }
  ~Company() {
    for (Request& member : members_) server_.Free(member);
  }

  void Replace() {
    for (Request& member : members_) {
      if (!member.done() || member.left() > 1) continue;
      server_.Free(member);
      member = Newcomer();
    }
  }
  bool AllGenerate() const {
    return std::all_of(members_.begin(), members_.end(),
                       [](const Request& m) { return m.left() == 1 && !m.answer.empty(); });
  }
  // Adds what the members compute next; `rows` may still be added. How many rows are of prompts.
  int64_t Add(int64_t rows, std::vector<std::pair<Request*, int64_t>>& work) {
    int64_t of_prompts = 0;
    auto waiting = static_cast<int64_t>(members_.size());
    for (Request& member : members_) {
      // Everybody has room for one row.
      const int64_t count = std::min({member.left(), member.chunk, rows - --waiting});
      work.emplace_back(&member, count);
      rows -= count;
      if (member.answer.empty()) of_prompts += count;
    }
    return of_prompts;
  }

 private:
  Request Newcomer() {
    const auto any = [this](int64_t least, int64_t most) {
      return std::uniform_int_distribution<int64_t>(least, most)(random_);
    };
    Request request;
    for (int64_t i = any(20, 180); i > 0; --i) request.ids.push_back(static_cast<int32_t>(any(0, 999)));
    request.seed = random_();
    request.wanted = any(8, 8 + std::min<int64_t>(96, 12 * static_cast<int64_t>(members_.size())));
    request.chunk = any(16, 250);
    return request;
  }

  Server& server_;
  std::mt19937 random_{11};
  std::vector<Request> members_;
};

// How the request under test is served.
struct Case {
  std::string name;
  int batch = 1;
  int64_t chunk = kWhole;
};

class ServingInvarianceTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Backend>> backend = BackendUnderTest();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    backend_ = *std::move(backend);
    std::string folder = std::string(PRISM_SOURCE_DIR "/tests/oracle/models/") + GetParam();
    if (IsFullSize()) {
      if (!backend_->has_device_memory()) GTEST_SKIP() << GetParam() << " takes a device of its own";
      folder = testing::TempDir() + "/prism-serving-" + GetParam();
      std::filesystem::create_directories(folder);
      std::filesystem::copy_file(
          std::string(PRISM_SOURCE_DIR "/tests/common/checkpoint/data/") + GetParam() + ".json",
          folder + "/config.json", std::filesystem::copy_options::overwrite_existing);
    }
    auto opened = Checkpoint::Open(folder, {.format = LoadFormat::kSynthetic});
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
    answer_ = backend_->has_device_memory() ? 128 : 24;
    const absl::Status encoded = EncodePicture();
    ASSERT_TRUE(encoded.ok()) << encoded;
  }

  static bool IsFullSize() { return std::strstr(GetParam(), "micro") == nullptr; }

  absl::Status EncodePicture() {
    PRISM_ASSIGN_OR_RETURN(const PatchGrid grid, PatchesOfPicture("coffee.jpg"));
    PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend_->CreateStream({.num_threads = 2}));
    PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<VisionModel> tower,
                           VisionModel::Load(*stream, *checkpoint_));
    const VisionGrid size = {.t = static_cast<int32_t>(grid.size.t),
                             .h = static_cast<int32_t>(grid.size.h),
                             .w = static_cast<int32_t>(grid.size.w)};
    const int64_t levels = tower->num_deepstack(), tokens = size.num_tokens();
    picture_.rows =
        Tensor::Host(backend_->activation_dtype(), Shape{1 + levels, tokens, tower->hidden_size()});
    span_ = {.offset = kTextTokens / 2, .num_tokens = tokens, .grid_h = size.h, .grid_w = size.w};
    return tower->Forward(*stream, grid.patches.view(), {&size, 1},
                          picture_.rows.view().Rows(0, 1).Reshape({tokens, tower->hidden_size()}),
                          picture_.rows.view().Rows(1, levels));
  }

  Request UnderTest() const {
    Request request;
    std::mt19937 random(5);
    for (int64_t i = 0; i < kTextTokens; ++i) request.ids.push_back(static_cast<int32_t>(random() % 1000));
    request.ids.insert(request.ids.begin() + span_.offset, static_cast<size_t>(span_.num_tokens),
                       static_cast<int32_t>(checkpoint_->config().image_token_id));
    request.spans = {span_};
    request.picture = &picture_;
    request.seed = 0x5eed;
    request.wanted = answer_;
    return request;
  }

  // Serves `request` until it has its answer, in the middle of its company.
  void Serve(Server& server, const Case& how, Request& request, int64_t until) {
    Company company(&server, how.batch - 1);
    request.chunk = how.chunk;
    while (!company.AllGenerate()) {
      std::vector<std::pair<Request*, int64_t>> work;
      company.Add(kRowsMax, work);
      const absl::Status status = server.Step(work);
      ASSERT_TRUE(status.ok()) << status;
    }
    for (int step = 0; static_cast<int64_t>(request.answer.size()) < until; ++step) {
      if (step % kArrivalSteps == 0) company.Replace();
      std::vector<std::pair<Request*, int64_t>> work;
      const int64_t own = std::min({request.left(), request.chunk, kRowsMax - how.batch + 1});
      prompt_rows_ += company.Add(kRowsMax - own, work);
      work.insert(work.begin() + how.batch / 2, {&request, own});
      generated_only_ += std::all_of(work.begin(), work.end(), [](const auto& w) { return w.second == 1; });
      const absl::Status status = server.Step(work);
      ASSERT_TRUE(status.ok()) << status;
      ++steps_;
    }
  }

  // One line a case.
  void Expect(const std::string& name, const std::vector<RowSample>& got,
              const std::vector<RowSample>& want) {
    ASSERT_EQ(got.size(), want.size()) << name;
    size_t same = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const auto bits = [](const RowSample& s, const RowSample& t) {
        bool equal = s.token_id == t.token_id && s.num_top == t.num_top &&
                     std::memcmp(&s.logit, &t.logit, sizeof s.logit) == 0 &&
                     std::memcmp(&s.log_sum_exp, &t.log_sum_exp, sizeof s.log_sum_exp) == 0;
        for (int b = 0; b < s.num_top; ++b) {
          const auto place = static_cast<size_t>(b);
          equal = equal && s.top[place].id == t.top[place].id &&
                  std::memcmp(&s.top[place].logit, &t.top[place].logit, sizeof(float)) == 0;
        }
        return equal;
      };
      if (same == i && bits(got[i], want[i])) ++same;
    }
    std::printf(
        "  %-58s %3zu of %zu tokens to the last bit; %d steps, %d of them only generate, %lld rows of other "
        "prompts\n",
        name.c_str(), same, want.size(), steps_, generated_only_, static_cast<long long>(prompt_rows_));
    std::fflush(stdout);
    EXPECT_EQ(same, want.size()) << name << ": token " << same << " is the first that differs";
    steps_ = generated_only_ = 0;
    prompt_rows_ = 0;
  }

  void RunCase(Server& server, const Case& how) {
    Request request = UnderTest();
    Serve(server, how, request, answer_);
    server.Free(request);
    if (HasFatalFailure()) return;
    if (alone_.empty()) alone_ = request.answer;
    Expect(how.name, request.answer, alone_);
  }

  std::unique_ptr<Server> Load(int num_ranks) {
    auto server = Server::Create(*backend_, *checkpoint_, num_ranks);
    if (server.ok()) return *std::move(server);
    refused_ = server.status();
    return nullptr;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  int64_t answer_ = 0;
  PulledEmbedding picture_;
  VisualSpan span_;
  std::vector<RowSample> alone_;
  absl::Status refused_;
  int steps_ = 0, generated_only_ = 0;
  int64_t prompt_rows_ = 0;
};

TEST_P(ServingInvarianceTest, TheAnswerHasTheSameBitsHoweverItIsServed) {
  std::unique_ptr<Server> server = Load(1);
  if (server == nullptr && absl::IsResourceExhausted(refused_)) GTEST_SKIP() << refused_;
  ASSERT_NE(server, nullptr) << refused_;
  RunCase(*server, {.name = "alone"});
  RunCase(*server, {.name = "alone, once more"});
  ASSERT_FALSE(alone_.empty());
  // Not one token again and again, which a broken step could give as well.
  std::map<int32_t, int> ids;
  for (const RowSample& sample : alone_) ++ids[sample.token_id];
  EXPECT_GT(ids.size(), alone_.size() / 4);
  for (const int64_t chunk : {int64_t{64}, int64_t{512}}) {
    RunCase(*server, {.name = absl::StrCat("alone, prompt in chunks of ", chunk), .chunk = chunk});
  }
  const std::vector<int> batches =
      backend_->has_device_memory() ? std::vector<int>{2, 8, 32, 64, 128, 256} : std::vector<int>{2, 8, 24};
  for (const int batch : batches) {
    const int64_t chunk = batch % 3 == 2 ? 64 : kWhole;
    RunCase(*server, {.name = absl::StrCat("batch of ", batch, ", prompt ",
                                           chunk == kWhole ? "whole" : "in chunks of 64"),
                      .batch = batch,
                      .chunk = chunk});
  }
  if (HasFatalFailure()) return;

  // An earlier request of the same prompt keeps its pages while it goes on with another answer.
  Request earlier = UnderTest();
  earlier.seed = 99;
  Serve(*server, {.batch = 2}, earlier, answer_ / 2);
  {
    Request request = UnderTest();
    const size_t whole_pages = request.ids.size() / kTokensPerPage;
    server->Share(earlier, whole_pages, request);
    Serve(*server, {.batch = 8}, request, answer_);
    Expect(absl::StrCat("batch of 8, ", whole_pages, " pages of an earlier request"), request.answer, alone_);
    server->Free(request);
  }
  server->Free(earlier);

  // Stopped in the middle, its tokens computed anew as a prompt.
  const int64_t middle = answer_ * 3 / 4;
  {
    Request request = UnderTest();
    Serve(*server, {.batch = 1}, request, middle);
    server->Free(request);
    Serve(*server, {.batch = 8, .chunk = 64}, request, answer_);
    Expect(absl::StrCat("resumed after ", middle, " tokens, batch of 8"), request.answer, alone_);
    server->Free(request);
  }
  // Likewise, but on the pages that the first run wrote, generated tokens among them.
  {
    Request first = UnderTest();
    Serve(*server, {.batch = 2}, first, middle);
    Request second = first;
    second.pages.clear();
    const size_t whole_pages = (first.ids.size() - 1) / kTokensPerPage;
    server->Share(first, whole_pages, second);
    Serve(*server, {.batch = 8}, second, answer_);
    Expect(absl::StrCat("resumed after ", middle, " tokens on ", whole_pages, " pages of the first run"),
           second.answer, alone_);
    server->Free(first);
    server->Free(second);
  }

  server.reset();
  for (const int ranks : {2, 4}) {
    server = Load(ranks);
    if (server == nullptr) {
      // Fewer devices than ranks, or none that reach each other: nothing to compare.
      std::printf("  %d ranks: not run, %s\n", ranks, refused_.ToString().c_str());
      EXPECT_TRUE(absl::IsNotFound(refused_) || absl::IsFailedPrecondition(refused_)) << refused_;
      continue;
    }
    RunCase(*server, {.name = absl::StrCat(ranks, " ranks, alone")});
    RunCase(*server,
            {.name = absl::StrCat(ranks, " ranks, batch of ", batches[2], ", prompt in chunks of 64"),
             .batch = batches[2],
             .chunk = 64});
    server.reset();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ServingInvarianceTest,
                         testing::Values("dense-micro", "moe-micro", "30b-a3b"), [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace prism
