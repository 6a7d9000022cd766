// KeepCallbackThreads() lets gRPC's callback threads live as long as the process.
//
// gRPC 1.51 ends them with the last channel or server that uses callbacks, and joins them there. If
// that last reference is dropped by a callback (a call keeps its channel until its callback has
// returned), a callback thread joins itself and its queue is freed twice.
//
// Thread safety: any thread. Never blocks.
#pragma once

namespace prism {

// Called by everything of ours that makes a server or a channel; further calls have no effect.
void KeepCallbackThreads();

}  // namespace prism
