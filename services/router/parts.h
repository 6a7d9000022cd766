// RouterParts: what every request uses, made once by main() or by a test.
//
// Thread safety: each part may be used from any thread. Ownership: the caller's, and outliving the
// service; nothing here is owned.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/checkpoint/model_config.h"
#include "common/text/chat_format.h"
#include "common/text/grammar/grammar_cache.h"
#include "common/text/tokenizer.h"
#include "services/router/admission_gate.h"
#include "services/router/media_store.h"
#include "services/router/metrics.h"
#include "services/router/options.h"
#include "services/router/replica_queue.h"
#include "services/router/replica_set.h"
#include "services/router/result_cache.h"

namespace prism {

struct RouterParts {
  const RouterOptions* options = nullptr;
  const ModelConfig* model = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const ChatFormat* format = nullptr;
  ReplicaSet* encoders = nullptr;
  ReplicaSet* decoders = nullptr;
  ReplicaQueue* encode_queue = nullptr;    // of `encoders`
  ReplicaQueue* generate_queue = nullptr;  // of `decoders`
  AdmissionGate* gate = nullptr;
  MediaStore* media = nullptr;
  GrammarCache* grammars = nullptr;  // forms of answers that were found to be sound
  TaskPool* pool = nullptr;          // tokenises and hashes
  ResultCache* results = nullptr;    // null: no result is kept
  std::string template_id;           // digest of chat template and tokenizer
  RouterMetrics* metrics = nullptr;
  const Clock* clock = nullptr;
  std::function<uint64_t()> draw_seed;  // for requests without one

  // Tokens of prompt plus answer that a chat may have now.
  int64_t LengthMax() const;
};

}  // namespace prism
