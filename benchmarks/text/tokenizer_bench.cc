// Measures the tokenizer: seconds to load, megabytes (10^6 bytes) a second on one core. The speed is taken
// from the thread's own processor time, so that other programs on the machine count only by what they take
// of its caches; beside it stands the speed by the clock on the wall.
//
//   tokenizer_bench [tokenizer.json]
//
// Without an argument: the Qwen vocabulary beside the checkout if it is there, else the micro one (whose
// 1024 ids make more merges fail and more tokens come out: its figures say little about a real model).

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "benchmarks/text/corpus.h"
#include "common/text/tokenizer.h"

namespace prism {
namespace {

constexpr int kRounds = 5;
constexpr size_t kCorpusBytes = 8'000'000;
constexpr size_t kPromptBytes = 1000;
constexpr double kLoadAimS = 0.5;
constexpr double kEncodeAimMbS = 5.0;

struct Moment {
  std::chrono::steady_clock::time_point wall;
  double processor_s;
};
Moment Now() {
  timespec processor;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &processor);
  return {std::chrono::steady_clock::now(),
          static_cast<double>(processor.tv_sec) + static_cast<double>(processor.tv_nsec) * 1e-9};
}
double ProcessorSeconds(const Moment& start) { return Now().processor_s - start.processor_s; }
double WallSeconds(const Moment& start) {
  return std::chrono::duration<double>(Now().wall - start.wall).count();
}

double Median(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// `text` in requests of at most `request_bytes`, cut at characters.
std::vector<std::string> Requests(const std::string& text, size_t request_bytes) {
  std::vector<std::string> requests;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(begin + request_bytes, text.size());
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
    requests.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return requests;
}

bool Measure(const Tokenizer& tokenizer, const char* name, const std::string& text, size_t request_bytes) {
  const std::vector<std::string> requests = Requests(text, request_bytes);
  std::vector<double> encode;
  std::vector<double> encode_wall;
  std::vector<double> decode;
  size_t num_tokens = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::vector<int32_t>> ids(requests.size());
    auto start = Now();
    for (size_t i = 0; i < requests.size(); ++i) {
      auto encoded = tokenizer.Encode(requests[i], SpecialTokens::kPlainText);
      if (!encoded.ok()) {
        std::fprintf(stderr, "%s: %s\n", name, encoded.status().ToString().c_str());
        return false;
      }
      ids[i] = *std::move(encoded);
    }
    encode.push_back(ProcessorSeconds(start));
    encode_wall.push_back(WallSeconds(start));
    start = Now();
    num_tokens = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (tokenizer.Decode(ids[i], false) != requests[i]) {
        std::fprintf(stderr, "%s: does not decode to itself\n", name);
        return false;
      }
      num_tokens += ids[i].size();
    }
    decode.push_back(ProcessorSeconds(start));
  }
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::printf("%-34s %9zu %8.2f %10.1f %10.1f %8.1f %12.1f\n", name, requests.size(),
              static_cast<double>(text.size()) / static_cast<double>(num_tokens), megabytes / Median(encode),
              megabytes / Median(encode_wall), kEncodeAimMbS, megabytes / Median(decode));
  return true;
}

int Run(const std::string& path) {
  std::vector<double> loads;
  std::unique_ptr<Tokenizer> tokenizer;
  for (int round = 0; round < kRounds; ++round) {
    tokenizer.reset();
    const Moment start = Now();
    auto loaded = Tokenizer::Load(path);
    loads.push_back(WallSeconds(start));
    if (!loaded.ok()) {
      std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
      return 1;
    }
    tokenizer = *std::move(loaded);
  }
  std::printf("%s: %d ids; machine: %u hardware threads; one thread used\n", path.c_str(),
              tokenizer->vocab_size(), std::thread::hardware_concurrency());
  std::printf("loading: first %.3f s, median of %d %.3f s, aim below %.1f s\n", loads.front(), kRounds,
              Median(loads), kLoadAimS);
  std::printf("%-34s %9s %8s %10s %10s %8s %12s\n", "text (8 MB each)", "requests", "B/token", "MB/s",
              "wall MB/s", "aim", "decode MB/s");
  const std::string english = EnglishCorpus(kCorpusBytes, 1);
  const std::string code = CodeCorpus(kCorpusBytes, 2);
  const std::string chinese = ChineseCorpus(kCorpusBytes, true, 3);
  const std::string run = ChineseCorpus(1 << 20, false, 4);
  const bool ok = Measure(*tokenizer, "English", english, english.size()) &&
                  Measure(*tokenizer, "English, prompts of 1 kB", english, kPromptBytes) &&
                  Measure(*tokenizer, "code", code, code.size()) &&
                  Measure(*tokenizer, "Chinese, unspaced", chinese, chinese.size()) &&
                  Measure(*tokenizer, "Chinese, prompts of 1 kB", chinese, kPromptBytes) &&
                  Measure(*tokenizer, "Chinese, one run of 1 MiB", run, run.size()) &&
                  Measure(*tokenizer, "one x, 1 MiB", std::string(1 << 20, 'x'), 1 << 20) &&
                  Measure(*tokenizer, "spaces, 1 MiB", std::string(1 << 20, ' '), 1 << 20);
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  std::string path = std::string(PRISM_SOURCE_DIR) + "/../shared/data/qwen-tokenizer/tokenizer.json";
  if (argc > 1) {
    path = argv[1];
  } else if (!std::ifstream(path).good()) {
    path = std::string(PRISM_SOURCE_DIR) + "/tests/oracle/models/moe-micro/tokenizer.json";
  }
  return prism::Run(path);
}
