// Channels as every client of ours opens them.
//
// Thread safety: functions only; a grpc::Channel may be used from any thread.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "common/rpc/server.h"

namespace prism {

struct ChannelOptions {
  int message_bytes_max = kMessageBytesMax;
  int keepalive_time_ms = 10000;    // a silent connection is pinged after this, with or without calls
  int keepalive_timeout_ms = 5000;  // and given up when no answer came within this
  int connect_timeout_ms = 2000;
  int backoff_min_ms = 100;  // between attempts to connect
  int backoff_max_ms = 2000;
  // Watches the peer's grpc.health.v1 status of "": while it is NOT_SERVING (starting, draining),
  // new calls fail with Unavailable at once; running ones go on. A peer without the health service
  // counts as serving.
  bool follow_health = false;
};

// A channel of its own connection to `address` ("host:port"): it shares none with other channels,
// uses no proxy, and repeats no call by itself. Never blocks; connects when first used.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, const ChannelOptions& options = {});

}  // namespace prism
