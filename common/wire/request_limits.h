// Bounds of one request that several services check, each for itself: what one lets through, the next takes.
// Those of stop strings stand in common/text/stop_matcher.h.
#pragma once

namespace prism {

inline constexpr int kChoicesMax = 4;
inline constexpr int kTopLogprobsMax = 20;
inline constexpr int kLogitBiasMax = 1024;
inline constexpr int kStopTokenIdsMax = 64;
inline constexpr int kPromptLogprobsMax = 65536;  // prompt tokens x (1 + alternatives)
inline constexpr int kBadWordsMax = 64;
inline constexpr int kBadWordBytesMax = 256;
inline constexpr int kBadSequencesMax = 128;  // of ids; a bad word makes one or two
inline constexpr int kBadSequenceIdsMax = 32;
inline constexpr int kAllowedTokenIdsMax = 4096;
inline constexpr int kIgnoreEosTokensMax = 4096;  // of an answer that no end token ends
inline constexpr int kNameBytesMax = 256;         // model, user, cache_salt, a tool's name or id
inline constexpr int kIdempotencyKeyBytesMax = 128;
inline constexpr int kCancelIdsMax = 1024;

inline constexpr int kInlineMediaBytesMax = 8 << 20;  // of one file; larger ones by PutMedia
inline constexpr int kMediaChunkBytesMax = 1 << 20;   // of one PutMedia message
inline constexpr int kClipFramesMin = 2;
inline constexpr int kClipFramesMax = 256;
inline constexpr double kClipFpsMax = 1000;

}  // namespace prism
