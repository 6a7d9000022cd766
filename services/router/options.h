// What a router is told when it starts.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace prism {

// Bounds of one chat that no flag changes, besides those of common/text/chat_format.h and
// common/wire/request_limits.h.
inline constexpr int kToolBytesMax = 64 << 10;  // of one tool's JSON
// A PutMedia without a next chunk is ended after this.
inline constexpr std::chrono::milliseconds kUploadIdleMax{30'000};

struct RouterOptions {
  std::string served_model_name;             // what clients ask for
  std::vector<std::string> vision_encoders;  // host:port or dns:///name:port
  std::vector<std::string> decoders;         // host:port or dns:///name:port
  int limit_images = 8;                      // pictures and clips a chat
  int64_t max_model_len = 0;  // tokens of prompt plus answer; 0: what checkpoint and decoders allow
  int max_waiting = 256;      // admitted chats without a decoder
  std::chrono::milliseconds queue_wait{5000};  // estimated wait for a decoder above which chats are refused
  int64_t limit_media_bytes = 32 << 20;        // of one picture file, or of a clip's together
  int64_t media_bytes = int64_t{512} << 20;    // of all pictures kept
  int threads = 2;                             // that tokenise and hash
  std::chrono::milliseconds request_timeout{300000};
  std::chrono::milliseconds encode_timeout{60000};     // of one picture on one encoder
  std::chrono::milliseconds full_encoder_wait{10000};  // for one that refuses a picture because it is full
  std::chrono::milliseconds silence_timeout{5000};     // of a decoder's stream, heartbeats included
  std::chrono::milliseconds stuck_timeout{60000};      // of a decoder that says work is due and does none
  // A chat that has begun waits so long for a decoder when none is ready.
  std::chrono::milliseconds resume_wait{15000};
  std::chrono::milliseconds poll_interval{250};  // of every replica
  std::chrono::milliseconds poll_timeout{2000};
  std::chrono::milliseconds resolve_interval{5000};  // of dns:/// names
  int64_t result_cache_bytes = 64 << 20;             // in memory; 0: no results are kept there
  std::chrono::milliseconds result_cache_ttl{86400000};
  std::string redis;                                // HOST:PORT or unix:PATH; empty: memory
  int64_t journal_bytes = int64_t{256} << 20;       // of the events kept for Resume
  std::chrono::milliseconds journal_ttl{120000};    // after the end, or after the last reader left
  std::chrono::milliseconds orphan_timeout{60000};  // a resumable chat that nobody reads runs so long
  std::chrono::milliseconds upload_idle = kUploadIdleMax;
  std::chrono::milliseconds media_idle{600000};  // an uploaded picture nobody uses is kept so long
};

}  // namespace prism
