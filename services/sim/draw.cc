#include "services/sim/draw.h"

#include <algorithm>
#include <chrono>

namespace prism::sim {
namespace {

// From nearly idle to overrun.
double DrawLoad(Random& random) { return 0.2 + 1.2 * random.Uniform(); }

// Roughly what the decoders can do.
double ChatsPerSecond(const SimDecoderOptions& decoder, int64_t num_decoders,
                      const WorkloadOptions& workload) {
  const double tokens = static_cast<double>(workload.max_tokens_max) / 2;
  const double prompt = 60 + static_cast<double>(workload.prompt_max) / 4;
  const double pages = (prompt + tokens) / kTokensPerPage + 1;
  const double running = std::min(static_cast<double>(decoder.scheduler.max_num_seqs),
                                  static_cast<double>(decoder.kv_pages) / pages);
  const double step_us =
      static_cast<double>(decoder.step_base) + running * static_cast<double>(decoder.step_row);
  const double chat_us = tokens * step_us / running + prompt * static_cast<double>(decoder.step_row);
  const double chats = 1 + workload.burst_chance * static_cast<double>(workload.burst_max) / 2;
  return static_cast<double>(num_decoders) * kSecond / chat_us / chats;
}

void DrawDecoder(bool faults, Random& random, SimDecoderOptions& decoder) {
  decoder.scheduler.max_num_seqs = random.Between(2, 12);
  decoder.scheduler.max_num_batched_tokens =
      decoder.scheduler.max_num_seqs + random.Between(1, random.Chance(0.5) ? 64 : 512);
  decoder.scheduler.growth_tokens = random.Chance(0.5) ? 0 : random.Between(0, 64);
  decoder.scheduler.waiting_max = 1024;  // chats are bounded at the door
  decoder.kv_pages = random.Between(10, random.Chance(0.5) ? 16 : 64);
  decoder.prefix_caching = random.Chance(0.8);
  decoder.max_waiting = random.Between(2, 24);
  decoder.embedding_tokens_max = random.Between(40, 200);
  decoder.heartbeat = random.Chance(0.5) ? kSecond : 200 * kMillisecond;
  decoder.step_base = random.Between(2, 30) * kMillisecond;
  decoder.step_row = random.Between(10, 200);
  if (faults && random.Chance(0.2)) decoder.step_failure_chance = 0.002;
}

void DrawEncoder(bool faults, Random& random, SimEncoderOptions& encoder) {
  encoder.store_tokens_max = random.Between(24, 200);
  encoder.batch_tokens_max = random.Between(12, 64);
  encoder.pictures_max = random.Between(1, 16);
  encoder.lease = random.Between(100, 8000) * kMillisecond;
  if (!faults) encoder.lease = 120 * kSecond;  // as in service: outlasts any queue
  encoder.pass_base = random.Between(2, 50) * kMillisecond;
  if (faults && random.Chance(0.2)) encoder.corrupt_chance = 0.02;
}

void DrawRouter(const SimDecoderOptions& decoder, const SimEncoderOptions& encoder, Random& random,
                SimRouterOptions& router) {
  router.admission.waiting_max = random.Between(8, 64);
  router.admission.wait_max = std::chrono::milliseconds(random.Between(500, 8000));
  router.tenants.other.weight = 0.5 + 2 * random.Uniform();
  router.tenants.named["tenant-0"].weight = 1;
  if (random.Chance(0.3)) router.tenants.named["tenant-0"].concurrency = random.Between(2, 16);
  if (random.Chance(0.2)) router.tenants.named["tenant-1"].tokens_per_minute = 20'000;
  router.decoders.capacity = decoder.scheduler.max_num_seqs + random.Between(0, 4);
  if (random.Chance(0.2)) router.decoders.capacity = 1000;  // the decoders' own doors decide
  router.decoders.prefix_blocks_max = static_cast<size_t>(decoder.kv_pages);
  router.pictures.encoders.capacity = random.Between(1, 2 * encoder.pictures_max);
  router.pictures.full_wait = random.Between(100, 10'000) * kMillisecond;
  if (random.Chance(0.2)) router.journal_bytes = random.Between(2'000, 200'000);
  router.orphan_timeout = random.Between(5, 60) * kSecond;
  if (random.Chance(0.5)) {
    router.attempts.silence = std::chrono::milliseconds(3 * decoder.heartbeat / kMillisecond);
  }
}

void DrawNetwork(bool faults, Random& random, NetworkOptions& network) {
  network.delay_mean_us = static_cast<double>(random.Between(50, 3000));
  // A spike may outlast the watchdog.
  network.spike_chance = random.Chance(0.5) || !faults ? 0 : 0.005;
  network.detect_mean_us = static_cast<double>(random.Between(1, 200) * kMillisecond);
  network.late_chance = random.Uniform();
}

void DrawWorkload(const ClusterOptions& cluster, Random& random, WorkloadOptions& workload) {
  workload.prompt_max = random.Between(8, 320);
  workload.max_tokens_max = random.Between(4, random.Chance(0.5) ? 40 : 160);
  workload.arrivals_per_s =
      DrawLoad(random) * ChatsPerSecond(cluster.decoder, cluster.num_decoders, workload);
  workload.picture_chance = random.Chance(0.2) ? 0 : random.Uniform();
  workload.num_pictures = random.Between(2, 24);
  workload.prefix_chance = random.Uniform();
  workload.cancel_chance = random.Chance(0.3) ? 0 : 0.3 * random.Uniform();
  workload.disconnect_chance = random.Chance(0.3) ? 0 : 0.4 * random.Uniform();
  workload.deadline_chance = random.Chance(0.3) ? 0 : 0.3 * random.Uniform();
}

}  // namespace

Drawn Draw(Random& random) {
  Drawn drawn;
  drawn.faults = DrawFaults(random);
  ClusterOptions& cluster = drawn.cluster;
  cluster.faults = drawn.faults.mean_gap_s > 0;
  cluster.num_decoders = random.Between(1, 4);
  cluster.num_encoders = random.Between(1, 3);
  DrawDecoder(cluster.faults, random, cluster.decoder);
  DrawEncoder(cluster.faults, random, cluster.encoder);
  DrawRouter(cluster.decoder, cluster.encoder, random, cluster.router);
  DrawNetwork(cluster.faults, random, cluster.network);
  DrawWorkload(cluster, random, drawn.workload);
  return drawn;
}

}  // namespace prism::sim
