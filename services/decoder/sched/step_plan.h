// StepPlan: what one engine step computes. Immutable once made, and the same bytes for every
// rank. S sequences, T token rows, R logit rows, P the widest page table.
//
// Rows of one sequence are consecutive, in the order of its tokens; sequences follow each other.
#pragma once

#include <cstdint>
#include <vector>

namespace prism {

using SequenceId = uint64_t;

// The part of one sequence that a step computes.
struct PlannedSequence {
  SequenceId id = 0;
  int64_t begin = 0;        // index in the sequence of the first token computed
  int64_t count = 0;        // tokens computed, >= 1
  int64_t first_row = 0;    // row of the token at `begin`
  int64_t first_logit = 0;  // its place among the logit rows
  int64_t num_logits = 0;   // 0: none wanted; they belong to the last `num_logits` of its rows
  friend bool operator==(const PlannedSequence&, const PlannedSequence&) = default;
};

// Consecutive rows that one embedding fills.
struct VisualRun {
  SequenceId sequence = 0;
  int32_t embedding_index = 0;  // which of that sequence's embeddings
  int64_t first_embedding_row = 0;
  int64_t first_row = 0;  // of the step
  int64_t count = 0;      // >= 1
  friend bool operator==(const VisualRun&, const VisualRun&) = default;
};

struct StepPlan {
  uint64_t step = 0;                       // counts plans from 1
  std::vector<PlannedSequence> sequences;  // [S]
  std::vector<int32_t> token_ids;          // [T]
  std::vector<int32_t> positions;          // [3, T], axis-major
  std::vector<int32_t> slots;              // [T]     page * 64 + offset in the page
  std::vector<int32_t> query_starts;       // [S + 1] first row of each sequence; last is T
  std::vector<int32_t> context_lengths;    // [S]     tokens in KV once this step has run
  std::vector<int32_t> page_tables;        // [S, P]  pages in order; unused entries are 0
  int64_t page_table_width = 0;            // P
  std::vector<int32_t> logit_rows;         // [R]     ascending
  std::vector<VisualRun> visual_runs;      // ascending by first_row
  int64_t num_visual_rows = 0;

  bool empty() const { return sequences.empty(); }
  int64_t num_rows() const { return static_cast<int64_t>(token_ids.size()); }
  friend bool operator==(const StepPlan&, const StepPlan&) = default;
};

}  // namespace prism
