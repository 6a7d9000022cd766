#include "services/sim/network.h"

#include <algorithm>
#include <utility>

namespace prism::sim {

SimTime Network::Delay() {
  Random& random = world_->random();
  SimTime delay = 20 + random.Exponential(options_.delay_mean_us);
  if (random.Chance(options_.spike_chance)) delay += random.Exponential(options_.spike_mean_us);
  return delay;
}

SimTime Network::DetectDelay() { return 20 + world_->random().Exponential(options_.detect_mean_us); }

StreamId Network::Open(ProcessId client, ProcessId server, Event first) {
  streams_.push_back({.client = client, .server = server});
  const StreamId id = streams_.size();
  open_.push_back(id);
  Find(id).server_incarnation = world_->incarnation(server);
  if (!world_->alive(server)) {
    Find(id).server_open = false;
    TellClient(id);
    return id;
  }
  ToServer(id, std::move(first));
  return id;
}

void Network::ToServer(StreamId id, Event message) {
  Stream& stream = Find(id);
  if (!stream.client_open || stream.broken) return;
  message.to = stream.server;
  message.stream = id;
  stream.to_server = std::max(stream.to_server + 1, world_->now() + Delay());
  world_->queue().Push(stream.to_server, std::move(message));
}

void Network::ToClient(StreamId id, Event message, SimTime extra_delay) {
  Stream& stream = Find(id);
  if (!stream.server_open || stream.broken) return;
  message.to = stream.client;
  message.stream = id;
  stream.to_client = std::max(stream.to_client + 1, world_->now() + extra_delay + Delay());
  world_->queue().Push(stream.to_client, std::move(message));
}

void Network::End(StreamId id, EndCode code) {
  ToClient(id, {.kind = EventKind::kEnd, .code = code});
  Find(id).server_open = false;
}

void Network::Cancel(StreamId id) {
  ToServer(id, {.kind = EventKind::kCancel});
  Find(id).client_open = false;
}

void Network::TellClient(StreamId id) {
  const Stream& stream = Find(id);
  const SimTime time = std::max(stream.to_client + 1, world_->now() + DetectDelay());
  world_->queue().Push(time, {.kind = EventKind::kEnd,
                              .code = EndCode::kConnectionLost,
                              .broken = true,
                              .to = stream.client,
                              .stream = id});
}

void Network::TellServer(StreamId id) {
  const Stream& stream = Find(id);
  const SimTime time = std::max(stream.to_server + 1, world_->now() + DetectDelay());
  world_->queue().Push(time, {.kind = EventKind::kCancel, .broken = true, .to = stream.server, .stream = id});
}

void Network::Break(ProcessId a, ProcessId b) {
  for (const StreamId id : open_) {
    const Stream& stream = Find(id);
    if ((stream.client == a && stream.server == b) || (stream.client == b && stream.server == a)) {
      Break(id);
    }
  }
}

void Network::Break(StreamId id) {
  Stream& stream = Find(id);
  if (stream.broken) return;
  stream.broken = true;
  TellClient(id);
  TellServer(id);
}

void Network::Died(ProcessId process) {
  // What a process sent before it died may still arrive.
  const bool lossy = world_->random().Chance(0.5);
  for (const StreamId id : open_) {
    Stream& stream = Find(id);
    if (stream.server == process) {
      stream.server_open = false;
      TellClient(id);
      if (lossy) stream.broken = true;
    }
    if (stream.client == process) {
      stream.client_open = false;
      TellServer(id);
      if (lossy) stream.broken = true;
    }
  }
}

bool Network::Arrives(const Event& message) {
  Stream& stream = Find(message.stream);
  const bool to_client = message.to == stream.client;
  if (stream.broken && !message.broken) return false;
  if (to_client) {
    const bool open = stream.client_open;
    if (message.kind == EventKind::kEnd) {
      stream.client_open = false;
      Settle(message.stream);
      return open;
    }
    return open || world_->random().Chance(options_.late_chance);
  }
  if (!world_->alive(stream.server) || world_->incarnation(stream.server) != stream.server_incarnation) {
    if (message.kind == EventKind::kCancel) Settle(message.stream);
    return false;
  }
  if (message.kind == EventKind::kCancel) {
    const bool open = stream.server_open;
    stream.server_open = false;
    Settle(message.stream);
    return open;
  }
  return stream.server_open;
}

void Network::Settle(StreamId id) {
  if (Find(id).client_open || Find(id).server_open) return;
  const auto found = std::find(open_.begin(), open_.end(), id);
  if (found == open_.end()) return;
  *found = open_.back();
  open_.pop_back();
}

}  // namespace prism::sim
