#include "services/sim/replay.h"

#include <algorithm>
#include <memory>

#include "services/sim/cluster.h"

namespace prism::sim {
namespace {

// A trace ends after so much simulated time beyond its last arrival, come what may.
constexpr SimTime kEndBound = 3600 * kSecond;
constexpr int64_t kRoomy = int64_t{1} << 24;

ClusterOptions ClusterOf(const ReplayOptions& options) {
  ClusterOptions cluster;
  cluster.seed = options.seed;
  cluster.num_decoders = options.num_decoders;
  cluster.num_encoders = options.num_encoders;
  SimDecoderOptions& decoder = cluster.decoder;
  decoder.scheduler.max_num_seqs = options.max_num_seqs;
  decoder.scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
  decoder.kv_pages = options.kv_pages;
  decoder.prefix_caching = options.prefix_caching;
  decoder.max_waiting = 128;
  decoder.embedding_tokens_max = kRoomy;
  decoder.step_base = options.step_base_us;
  decoder.step_row = options.step_row_us;
  SimEncoderOptions& encoder = cluster.encoder;
  encoder.store_tokens_max = kRoomy;
  encoder.batch_tokens_max = 4096;
  encoder.pictures_max = 64;
  encoder.lease = 120 * kSecond;
  encoder.pass_base = options.pass_base_us;
  encoder.pass_token = options.pass_token_us;
  SimRouterOptions& router = cluster.router;
  router.admission.wait_max = std::chrono::milliseconds(options.wait_max_ms);
  router.request_timeout = 300 * kSecond;
  router.decoders.placement = options.placement;
  router.decoders.capacity = options.max_num_seqs + std::max<int64_t>(2, options.max_num_seqs / 4);
  router.decoders.prefix_blocks_max = static_cast<size_t>(options.kv_pages);
  router.pictures.encoders.capacity = 64;
  return cluster;
}

double Percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto index = static_cast<size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

double Ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

ReplayResult Replay(const std::vector<TraceChat>& trace, const ReplayOptions& options) {
  Cluster cluster(ClusterOf(options), [&trace](Random*) { return std::make_unique<TraceSource>(&trace); });
  SimClients& clients = cluster.clients();
  clients.KeepRecords();
  clients.SetSentAwayMax(0);
  const auto end_by = static_cast<SimTime>(trace.back().arrival_ms * kMillisecond) + kEndBound;
  while (cluster.healthy() && (clients.arrivals() || !cluster.AllIdle())) {
    if (cluster.world().now() > end_by) cluster.world().Violate("the trace does not end");
    cluster.Next([](const Event&) {});
  }

  ReplayResult result;
  result.violation = cluster.world().violation();
  result.finished = clients.counts()[static_cast<size_t>(SimClients::Outcome::kFinished)];
  for (const int64_t count : clients.counts()) result.refused += count;
  result.refused -= result.finished;
  std::vector<double> ttfts;
  int64_t tokens = 0;
  int64_t good = 0;
  double gaps_ms = 0;
  for (const SimClients::Record& record : clients.records()) {
    const double ttft_ms = static_cast<double>(record.first_token - record.began) / kMillisecond;
    ttfts.push_back(ttft_ms);
    if (ttft_ms <= static_cast<double>(options.ttft_objective_ms)) ++good;
    tokens += record.num_tokens;
    const double rest_ms = static_cast<double>(record.ended - record.first_token) / kMillisecond;
    gaps_ms += rest_ms / static_cast<double>(std::max<int64_t>(1, record.num_tokens - 1));
    result.wall_s = std::max(result.wall_s, static_cast<double>(record.ended) / kSecond);
  }
  std::sort(ttfts.begin(), ttfts.end());
  result.ttft_p50_ms = Percentile(ttfts, 0.5);
  result.ttft_p90_ms = Percentile(ttfts, 0.9);
  result.ttft_p99_ms = Percentile(ttfts, 0.99);
  if (!ttfts.empty()) result.token_gap_mean_ms = gaps_ms / static_cast<double>(ttfts.size());
  if (result.wall_s > 0) {
    result.tokens_per_s = static_cast<double>(tokens) / result.wall_s;
    result.goodput_per_s = static_cast<double>(good) / result.wall_s;
  }
  int64_t cached = 0;
  int64_t computed = 0;
  for (const auto& decoder : cluster.decoders()) {
    cached += decoder->cached_tokens();
    computed += decoder->computed_tokens();
  }
  result.prefix_hit_ratio = Ratio(cached, cached + computed);
  const SimPictures& pictures = cluster.router().pictures();
  result.embedding_hit_ratio = Ratio(pictures.cached(), pictures.encodes());
  return result;
}

}  // namespace prism::sim
