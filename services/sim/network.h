// Network carries the messages of streams: in order within a stream, in any order between streams,
// late, and not at all once a connection broke or a process died.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <vector>

#include "services/sim/event.h"
#include "services/sim/world.h"

namespace prism::sim {

struct NetworkOptions {
  double delay_mean_us = 300;
  double spike_chance = 0.002;  // of a message to take spike_mean_us longer
  double spike_mean_us = 100'000;
  double detect_mean_us = 5'000;  // until a peer's death or a broken connection is noticed
  // Of an event that was under way when its reader closed its end: to reach it nevertheless.
  double late_chance = 0.3;
};

class Network {
 public:
  Network(const NetworkOptions& options, World* world) : options_(options), world_(world) {}

  // A new stream with its first message, whose `to` and `stream` are filled in.
  StreamId Open(ProcessId client, ProcessId server, Event first);
  // Nothing is sent on an end that is closed.
  void ToServer(StreamId stream, Event message);
  void ToClient(StreamId stream, Event message, SimTime extra_delay = 0);
  // The server's last word.
  void End(StreamId stream, EndCode code);
  // The client's end closes; the server gets kCancel. Nothing if it is closed.
  void Cancel(StreamId stream);

  // All streams between the two break; both sides come to know, each in its time.
  void Break(ProcessId a, ProcessId b);
  // The stream alone.
  void Break(StreamId stream);
  // Those of a process that died.
  void Died(ProcessId id);

  // Whether the message is to be handled, now that its time has come. REQUIRES: message.stream != 0
  bool Arrives(const Event& message);

  // The server's end is open, so messages can be sent to the client.
  bool ServerOpen(StreamId stream) const { return streams_[stream - 1].server_open; }
  size_t num_open() const { return open_.size(); }

 private:
  struct Stream {
    ProcessId client = 0;
    ProcessId server = 0;
    uint32_t server_incarnation = 0;
    bool client_open = true;  // takes messages
    bool server_open = true;  // sends messages
    bool broken = false;      // what is under way is lost
    SimTime to_server = 0;    // when the last message to it arrives
    SimTime to_client = 0;
  };

  Stream& Find(StreamId id) { return streams_[id - 1]; }
  SimTime Delay();
  SimTime DetectDelay();
  void TellClient(StreamId id);
  void TellServer(StreamId id);
  void Settle(StreamId id);

  const NetworkOptions options_;
  World* const world_;
  std::vector<Stream> streams_;  // by id - 1
  std::vector<StreamId> open_;   // neither end knows that it is over, or one does
};

}  // namespace prism::sim
