// What the tests of steps share: a micro model on one rank with a runner and KV memory, and plans for it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint/checkpoint.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "services/decoder/engine/step_runner.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/kv/page.h"

namespace prism::test {

inline constexpr int64_t kPages = 40, kPagesMax = 20, kSequencesMax = 6;

inline absl::StatusOr<std::unique_ptr<Checkpoint>> OpenMicroModel(const std::string& name) {
  return Checkpoint::Open(PRISM_SOURCE_DIR "/tests/oracle/models/" + name,
                          {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
}

// Rows [begin, begin + count) of sequences 0 .. batch - 1, each with pages of its own.
inline StepPlan PlanOf(int64_t batch, int64_t begin, int64_t count) {
  StepPlan plan;
  plan.page_table_width = PagesFor(begin + count);
  plan.positions.resize(static_cast<size_t>(3 * batch * count));
  for (int64_t s = 0; s < batch; ++s) {
    plan.query_starts.push_back(static_cast<int32_t>(s * count));
    plan.context_lengths.push_back(static_cast<int32_t>(begin + count));
    plan.logit_rows.push_back(static_cast<int32_t>((s + 1) * count - 1));
    const auto page = [s](int64_t index) {
      return static_cast<int32_t>((index * kSequencesMax + s) % kPages);
    };
    for (int64_t i = 0; i < plan.page_table_width; ++i) plan.page_tables.push_back(page(i));
    for (int64_t i = begin; i < begin + count; ++i) {
      plan.token_ids.push_back(static_cast<int32_t>((s * 37 + i * 11 + 5) % 400));
      plan.slots.push_back(
          static_cast<int32_t>(page(i / kTokensPerPage) * kTokensPerPage + i % kTokensPerPage));
      for (int64_t axis = 0; axis < 3; ++axis) {
        plan.positions[static_cast<size_t>(axis * batch * count + s * count + i - begin)] =
            static_cast<int32_t>(i);
      }
    }
  }
  plan.query_starts.push_back(static_cast<int32_t>(batch * count));
  return plan;
}

// One rank alone. Steps of at most rows_max rows.
struct StepRig {
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<TextModel> model;
  std::unique_ptr<KvStore> kv;
  std::unique_ptr<StepRunner> runner;
  Tensor logits;

  static std::unique_ptr<StepRig> Make(Backend& backend, const Checkpoint& checkpoint, int64_t rows_max,
                                       bool record) {
    auto rig = std::make_unique<StepRig>();
    rig->stream = backend.CreateStream({.num_threads = 1}).value();
    rig->comm = std::move(CreateInProcessGroup(1)[0]);
    rig->model = TextModel::Load(*rig->stream, checkpoint, *rig->comm).value();
    const TextModel& model = *rig->model;
    rig->kv = KvStore::Create(*rig->stream,
                              {.num_layers = model.num_layers(),
                               .kv_heads = model.local_kv_heads(),
                               .head_dim = model.head_dim(),
                               .dtype = backend.activation_dtype()},
                              kPages)
                  .value();
    rig->runner = StepRunner::Create(*rig->stream, model, *rig->comm,
                                     {.limits = {.rows_max = rows_max,
                                                 .sequences_max = kSequencesMax,
                                                 .pages_max = kPagesMax,
                                                 .logit_rows_max = kSequencesMax,
                                                 .hidden_size = model.hidden_size(),
                                                 .num_deepstack = model.num_deepstack()},
                                      .record = record})
                      .value();
    rig->logits = rig->stream->Allocate(DType::kF32, {kSequencesMax, model.vocab_size()}).value();
    return rig;
  }

  // The plan's logit rows.
  std::vector<float> Run(const StepPlan& plan) const {
    const absl::Status ran = runner->Run(plan, {}, kv->layers(), logits.view());
    EXPECT_TRUE(ran.ok()) << ran;
    const auto rows = static_cast<int64_t>(plan.logit_rows.size());
    const Tensor host = Tensor::Host(DType::kF32, {rows, model->vocab_size()});
    const absl::Status copied = stream->CopyToHost(logits.view().Rows(0, rows), host.view());
    EXPECT_TRUE(copied.ok()) << copied;
    return {host.span<float>().begin(), host.span<float>().end()};
  }
};

}  // namespace prism::test
