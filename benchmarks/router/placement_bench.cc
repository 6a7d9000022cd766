// How decoders should be picked: policies on one workload with reuse, in simulated time.
//
//   bench_placement
//
// Chats of many turns arrive (Poisson): each turn's prompt is a system prompt that a class shares, the chat
// so far and a new question; the next turn comes some seconds after the answer. Each decoder has a prefix
// cache of so many blocks (least recently used first out), prefills one prompt after the other at a fixed
// rate and decodes beside it, slower the more sequences it has. All policies see the same arrivals. What is
// printed: the share of prompt tokens found in a cache, and the time to the first token. Only differences
// between policies mean anything; the rates are of no particular machine.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <functional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "services/router/placement.h"
#include "services/router/prefix_map.h"

namespace prism {
namespace {

constexpr int kDecoders = 4;
constexpr int kClasses = 12;  // system prompts
constexpr int kSystemTokens = 1536;
constexpr int kQuestionTokens = 192;
constexpr int kAnswerTokens = 128;
constexpr int kTurns = 5;
constexpr double kThinkS = 8;            // mean, between an answer and the next question
constexpr double kPrefillRate = 20'000;  // tokens a second
constexpr double kStepS = 0.02;          // of a token, with one sequence
constexpr double kStepPerSequenceS = 0.0005;
constexpr int kChats = 3000;
constexpr uint64_t kSeed = 7;

struct Policy {
  const char* name;
  // The index of the decoder.
  std::function<size_t(const std::vector<Candidate>&, int64_t prompt_tokens, uint64_t draw)> pick;
};

// What is true of a decoder; the router sees only Candidates made of what it sent there.
struct Decoder {
  explicit Decoder(size_t blocks) : cache(blocks), believed(blocks) {}
  PrefixMap cache;
  PrefixMap believed;
  double prefill_free_at = 0;
  int64_t sequences = 0;
  double pending_tokens = 0;
};

struct Result {
  double hit_share = 0;
  double ttft_mean = 0, ttft_p95 = 0;
};

Result Run(const Policy& policy, double chats_per_s, size_t cache_blocks, double hot_share) {
  std::mt19937_64 random(kSeed);
  std::exponential_distribution<double> gap(chats_per_s), think(1 / kThinkS);
  std::deque<Decoder> decoders;
  for (int i = 0; i < kDecoders; ++i) decoders.emplace_back(cache_blocks);
  struct Event {
    double at;
    int kind;  // 0: a turn arrives; 1: its prompt is computed; 2: its answer is whole
    int chat, turn, decoder;
    double rest;  // prompt tokens to compute
    bool operator>(const Event& other) const { return at > other.at; }
  };
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events;
  double at = 0;
  for (int chat = 0; chat < kChats; ++chat) events.push({at += gap(random), 0, chat, 0, 0, 0});
  double asked = 0, hit = 0;
  std::vector<double> ttft;
  uint64_t draws = 0;
  while (!events.empty()) {
    const Event event = events.top();
    events.pop();
    if (event.kind == 1) {
      decoders[static_cast<size_t>(event.decoder)].pending_tokens -= event.rest;
      continue;
    }
    if (event.kind == 2) {
      --decoders[static_cast<size_t>(event.decoder)].sequences;
      if (event.turn + 1 < kTurns) {
        events.push({event.at + think(random), 0, event.chat, event.turn + 1, 0, 0});
      }
      continue;
    }
    const int tokens = kSystemTokens + event.turn * (kQuestionTokens + kAnswerTokens) + kQuestionTokens;
    const double lot =
        static_cast<double>(SplitMix64(static_cast<uint64_t>(event.chat) + kSeed) >> 11) * 0x1p-53;
    const int system = lot < hot_share ? 0 : event.chat % kClasses;
    std::vector<int32_t> ids;
    for (int i = 0; i < tokens; ++i) {
      ids.push_back(i < kSystemTokens ? system : 1000 + event.chat);
    }
    const std::vector<uint64_t> blocks = PrefixBlocks(ids, {}, "");
    std::vector<Candidate> known;
    for (Decoder& decoder : decoders) {
      known.push_back(
          {.in_flight = decoder.sequences,
           .pending_tokens = decoder.pending_tokens,
           .known_tokens = static_cast<int64_t>(decoder.believed.Match(blocks)) * kPrefixBlockTokens});
    }
    const size_t picked = policy.pick(known, tokens, SplitMix64(++draws * 0x9E3779B97F4A7C15u));
    Decoder& decoder = decoders[picked];
    const double found = static_cast<double>(decoder.cache.Match(blocks)) * kPrefixBlockTokens;
    decoder.cache.Add(blocks);
    decoder.believed.Add(blocks);
    asked += tokens;
    hit += found;
    const double rest = tokens - found;
    decoder.prefill_free_at = std::max(decoder.prefill_free_at, event.at) + rest / kPrefillRate;
    ++decoder.sequences;
    decoder.pending_tokens += rest;
    const double step_s = kStepS + kStepPerSequenceS * static_cast<double>(decoder.sequences);
    const double first = decoder.prefill_free_at + step_s;
    ttft.push_back(first - event.at);
    events.push({first, 1, event.chat, event.turn, static_cast<int>(picked), rest});
    events.push({first + kAnswerTokens * step_s, 2, event.chat, event.turn, static_cast<int>(picked), 0});
  }
  std::sort(ttft.begin(), ttft.end());
  double sum = 0;
  for (const double each : ttft) sum += each;
  return {.hit_share = hit / asked,
          .ttft_mean = sum / static_cast<double>(ttft.size()),
          .ttft_p95 = ttft[ttft.size() * 95 / 100]};
}

int Main() {
  uint64_t turn = 0;
  const std::vector<Policy> policies = {
      {"round robin", [&](const auto& known, int64_t, uint64_t) { return turn++ % known.size(); }},
      {"least loaded",
       [&](const auto& known, int64_t, uint64_t) {
         size_t best = turn++ % known.size();
         for (size_t i = 0; i < known.size(); ++i) {
           if (known[i].load() < known[best].load()) best = i;
         }
         return best;
       }},
      {"longest prefix only",
       [&](const auto& known, int64_t, uint64_t draw) {
         size_t best = draw % known.size();
         for (size_t i = 0; i < known.size(); ++i) {
           if (known[i].known_tokens > known[best].known_tokens) best = i;
         }
         return best;
       }},
      {"two choices, no prefix",
       [](std::vector<Candidate> known, int64_t tokens, uint64_t draw) {
         for (Candidate& each : known) each.known_tokens = 0;
         return *PickDecoder(known, tokens, draw, true);
       }},
      {"prefix against load", [](const auto& known, int64_t tokens,
                                 uint64_t draw) { return *PickDecoder(known, tokens, draw, true); }},
  };
  std::printf("%d decoders, %d chats of %d turns, %d system prompts of %d tokens\n\n", kDecoders, kChats,
              kTurns, kClasses, kSystemTokens);
  std::printf(
      "| chats/s | cache, blocks | of one class | policy | prompt tokens found | TTFT mean | TTFT p95 |\n"
      "|---|---|---|---|---|---|---|\n");
  struct Case {
    double rate;
    size_t blocks;
    double hot_share;
  };
  for (const Case& each : {Case{3, 512, 0}, Case{6, 512, 0}, Case{6, 4096, 0}, Case{6, 4096, 0.8}}) {
    for (const Policy& policy : policies) {
      const Result result = Run(policy, each.rate, each.blocks, each.hot_share);
      std::printf("| %.0f | %zu | %.0f %% | %s | %.0f %% | %.0f ms | %.0f ms |\n", each.rate, each.blocks,
                  100 * std::max(each.hot_share, 1.0 / kClasses), policy.name, 100 * result.hit_share,
                  1e3 * result.ttft_mean, 1e3 * result.ttft_p95);
    }
  }
  return 0;
}

}  // namespace
}  // namespace prism

int main() { return prism::Main(); }
