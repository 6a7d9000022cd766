// Every op's check: what it says of an absent tensor, a wrong type, rank or size, and of a backend
// that does not have the op.
#include <functional>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/add.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/attention_prepare.h"
#include "kernels/ops/cast.h"
#include "kernels/ops/concat_columns.h"
#include "kernels/ops/embedding_gather.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/moe.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/position_embedding.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/rows.h"
#include "tests/kernels/device/fake_device.h"

namespace prism {
namespace {

// A tensor that a check may look at; its elements are never read.
TensorView Some(DType dtype, Shape shape) {
  static char memory[64];
  return TensorView(memory, dtype, std::move(shape));
}
TensorView F32(Shape shape) { return Some(DType::kF32, std::move(shape)); }
TensorView I32(Shape shape) { return Some(DType::kI32, std::move(shape)); }

// What makes valid arguments wrong, and what the op says then (without its name).
template <typename Args>
struct Refusal {
  std::function<void(Args&)> spoil;
  std::string message;
};

// A tensor of an op: its name in messages, where it is, and what its type must be.
template <typename Args>
struct Operand {
  std::string name;
  std::function<TensorView&(Args&)> of;
  std::string type_message;  // "f32" for "... is u8, want f32"; else the whole message
};

template <typename Args>
class OpCheck {
 public:
  using Function = absl::Status (*)(Stream&, const Args&);
  OpCheck(std::string name, Function function, Op<Args> OpTable::* entry, Args valid)
      : name_(std::move(name)), function_(function), entry_(entry), valid_(std::move(valid)) {}

  // Valid arguments reach the backend's function, or are Unimplemented without one.
  void ExpectValidArgumentsReachTheTable() {
    EXPECT_EQ(function_(stream_, valid_), absl::UnimplementedError(name_ + ": not in the fake backend"));
    backend_.table.*
        entry_ = [](Stream&, const Args&) { return absl::DataLossError("the backend's own answer"); };
    EXPECT_EQ(function_(stream_, valid_), absl::DataLossError("the backend's own answer"));
  }

  void ExpectRefuses(const Refusal<Args>& refusal) {
    Args args = valid_;
    refusal.spoil(args);
    EXPECT_EQ(function_(stream_, args),
              absl::InvalidArgumentError(absl::StrCat(name_, ": ", refusal.message)));
  }

  // Absent, of another type, with a dimension more.
  void ExpectRefusesEveryOtherForm(const Operand<Args>& operand) {
    ExpectRefuses({[&](Args& a) { operand.of(a) = TensorView(); }, operand.name + " is absent"});
    const bool is_type = operand.type_message.find(' ') == std::string::npos;
    ExpectRefuses({[&](Args& a) { operand.of(a) = Some(DType::kU8, operand.of(a).shape()); },
                   is_type ? operand.name + " is u8, want " + operand.type_message : operand.type_message});
    Args args = valid_;
    const Shape shape = operand.of(args).shape();
    std::vector<int64_t> dims(shape.dims().begin(), shape.dims().end());
    dims.push_back(1);
    ExpectRefuses(
        {[&](Args& a) { operand.of(a) = Some(operand.of(a).dtype(), Shape(dims)); },
         absl::StrCat(operand.name, " has shape ", Shape(dims).ToString(), ", want rank ", shape.rank())});
  }

 private:
  FakeBackend backend_;
  FakeStream stream_{&backend_};
  const std::string name_;
  const Function function_;
  Op<Args> OpTable::* const entry_;
  const Args valid_;
};

template <typename Args>
void Check(OpCheck<Args> check, const std::vector<Operand<Args>>& operands,
           const std::vector<Refusal<Args>>& refusals) {
  check.ExpectValidArgumentsReachTheTable();
  for (const Operand<Args>& operand : operands) check.ExpectRefusesEveryOtherForm(operand);
  for (const Refusal<Args>& refusal : refusals) check.ExpectRefuses(refusal);
}

// NOLINTNEXTLINE(bugprone-macro-parentheses): a type cannot stand in them
#define PRISM_OPERAND(Args, member, type) {#member, [](Args& a) -> TensorView& { return a.member; }, type}

TEST(AddTest, SaysWhatIsWrong) {
  Check<AddArgs>({"Add", Add, &OpTable::add, {.x = F32({3, 8}), .y = F32({3, 8})}},
                 {PRISM_OPERAND(AddArgs, x, "f32"), PRISM_OPERAND(AddArgs, y, "f32")},
                 {{[](AddArgs& a) { a.y = F32({2, 8}); }, "y dim T is 2, want 3"},
                  {[](AddArgs& a) { a.y = F32({3, 7}); }, "y dim C is 7, want 8"}});
}

TEST(SiluMulTest, SaysWhatIsWrong) {
  Check<SiluMulArgs>({"SiluMul", SiluMul, &OpTable::silu_mul, {.x = F32({3, 8}), .y = F32({3, 4})}},
                     {PRISM_OPERAND(SiluMulArgs, x, "f32"), PRISM_OPERAND(SiluMulArgs, y, "f32")},
                     {{[](SiluMulArgs& a) { a.y = F32({2, 4}); }, "y dim T is 2, want 3"},
                      {[](SiluMulArgs& a) { a.y = F32({3, 8}); }, "x must have twice the columns of y"}});
}

TEST(GeluTest, SaysWhatIsWrong) {
  Check<GeluArgs>({"Gelu", Gelu, &OpTable::gelu, {.x = F32({3, 8}), .form = GeluForm::kErf}},
                  {PRISM_OPERAND(GeluArgs, x, "f32")}, {});
}

TEST(RmsNormTest, SaysWhatIsWrong) {
  Check<RmsNormArgs>({"RmsNorm",
                      RmsNorm,
                      &OpTable::rms_norm,
                      {.x = F32({3, 8}), .weight = F32({8}), .y = F32({3, 8}), .epsilon = 1e-6f}},
                     {PRISM_OPERAND(RmsNormArgs, x, "f32"), PRISM_OPERAND(RmsNormArgs, weight, "f32"),
                      PRISM_OPERAND(RmsNormArgs, y, "f32")},
                     {{[](RmsNormArgs& a) { a.weight = F32({4}); }, "weight dim C is 4, want 8"},
                      {[](RmsNormArgs& a) { a.y = F32({4, 8}); }, "y dim T is 4, want 3"},
                      {[](RmsNormArgs& a) { a.epsilon = 0.0f; }, "epsilon must be above 0"},
                      {[](RmsNormArgs& a) { a.epsilon = std::nanf(""); }, "epsilon must be above 0"}});
}

TEST(HeadRmsNormTest, SaysWhatIsWrong) {
  using Args = HeadRmsNormArgs;
  Check<Args>({"HeadRmsNorm",
               HeadRmsNorm,
               &OpTable::head_rms_norm,
               {.x = F32({3, 20}), .weight = F32({8}), .column = 4, .num_heads = 2, .epsilon = 1e-6f}},
              {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, weight, "f32")},
              {{[](Args& a) { a.num_heads = 3; }, "heads reach past the last column"},
               {[](Args& a) { a.column = 5; }, "heads reach past the last column"},
               {[](Args& a) { a.column = -1; }, "heads reach past the last column"},
               {[](Args& a) { a.epsilon = -1.0f; }, "epsilon must be above 0"}});
}

TEST(LayerNormTest, SaysWhatIsWrong) {
  using Args = LayerNormArgs;
  Check<Args>({"LayerNorm",
               LayerNorm,
               &OpTable::layer_norm,
               {.x = F32({3, 8}), .weight = F32({8}), .bias = F32({8}), .y = F32({3, 8}), .epsilon = 1e-6f}},
              {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, weight, "f32"),
               PRISM_OPERAND(Args, bias, "f32"), PRISM_OPERAND(Args, y, "f32")},
              {{[](Args& a) { a.bias = F32({9}); }, "bias dim C is 9, want 8"},
               {[](Args& a) { a.epsilon = 0.0f; }, "epsilon must be above 0"}});
}

TEST(RopeTableTest, SaysWhatIsWrong) {
  using Args = RopeTableArgs;
  Check<Args>({"RopeTable",
               RopeTable,
               &OpTable::rope_table,
               {.positions = I32({3, 5}),
                .axis = I32({4}),
                .frequency = F32({4}),
                .cos = F32({5, 4}),
                .sin = F32({5, 4})}},
              {PRISM_OPERAND(Args, positions, "i32"), PRISM_OPERAND(Args, axis, "i32"),
               PRISM_OPERAND(Args, frequency, "f32"), PRISM_OPERAND(Args, cos, "f32"),
               PRISM_OPERAND(Args, sin, "f32")},
              {{[](Args& a) { a.frequency = F32({5}); }, "frequency dim D is 5, want 4"},
               {[](Args& a) { a.cos = F32({4, 4}); }, "cos dim T is 4, want 5"},
               {[](Args& a) { a.sin = F32({5, 3}); }, "sin dim D is 3, want 4"}});
}

TEST(RopeApplyTest, SaysWhatIsWrong) {
  using Args = RopeApplyArgs;
  Check<Args>(
      {"RopeApply",
       RopeApply,
       &OpTable::rope_apply,
       {.x = F32({3, 20}), .cos = F32({3, 4}), .sin = F32({3, 4}), .column = 4, .num_heads = 2}},
      {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, cos, "f32"), PRISM_OPERAND(Args, sin, "f32")},
      {{[](Args& a) { a.sin = F32({3, 5}); }, "sin dim D is 5, want 4"},
       {[](Args& a) { a.num_heads = 3; }, "heads reach past the last column"},
       {[](Args& a) { a.column = -1; }, "heads reach past the last column"}});
}

TEST(GatherRowsTest, SaysWhatIsWrong) {
  using Args = GatherRowsArgs;
  Check<Args>(
      {"GatherRows",
       GatherRows,
       &OpTable::gather_rows,
       {.x = F32({9, 4}), .rows = I32({3}), .y = F32({3, 4})}},
      {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, rows, "i32"), PRISM_OPERAND(Args, y, "f32")},
      {{[](Args& a) { a.rows = I32({2}); }, "y dim N is 3, want 2"}});
}

TEST(ScatterRowsTest, SaysWhatIsWrong) {
  using Args = ScatterRowsArgs;
  Check<Args>(
      {"ScatterRows",
       ScatterRows,
       &OpTable::scatter_rows,
       {.y = F32({3, 4}), .rows = I32({3}), .x = F32({9, 4})}},
      {PRISM_OPERAND(Args, y, "f32"), PRISM_OPERAND(Args, rows, "i32"), PRISM_OPERAND(Args, x, "f32")},
      {{[](Args& a) { a.y = F32({3, 5}); }, "y dim C is 5, want 4"}});
}

TEST(AddRowsTest, SaysWhatIsWrong) {
  using Args = AddRowsArgs;
  Check<Args>(
      {"AddRows", AddRows, &OpTable::add_rows, {.y = F32({3, 4}), .rows = I32({3}), .x = F32({9, 4})}},
      {PRISM_OPERAND(Args, y, "f32"), PRISM_OPERAND(Args, rows, "i32"), PRISM_OPERAND(Args, x, "f32")},
      {{[](Args& a) { a.rows = I32({4}); }, "y dim N is 3, want 4"}});
}

TEST(EmbeddingGatherTest, SaysWhatIsWrong) {
  using Args = EmbeddingGatherArgs;
  Check<Args>({"EmbeddingGather",
               EmbeddingGather,
               &OpTable::embedding_gather,
               {.table = Some(DType::kBF16, {9, 4}), .ids = I32({3}), .y = F32({3, 4})}},
              {PRISM_OPERAND(Args, table, "table must be f32 or bf16"), PRISM_OPERAND(Args, ids, "i32"),
               PRISM_OPERAND(Args, y, "f32")},
              {{[](Args& a) { a.y = F32({3, 5}); }, "y dim C is 5, want 4"},
               {[](Args& a) { a.y = F32({2, 4}); }, "y dim T is 2, want 3"}});
}

TEST(PositionEmbeddingTest, SaysWhatIsWrong) {
  using Args = PositionEmbeddingArgs;
  Check<Args>({"PositionEmbedding",
               PositionEmbedding,
               &OpTable::position_embedding,
               {.table = F32({9, 8}), .index = I32({4, 3}), .weight = F32({4, 3}), .x = F32({3, 8})}},
              {PRISM_OPERAND(Args, table, "table must be f32 or bf16"), PRISM_OPERAND(Args, index, "i32"),
               PRISM_OPERAND(Args, weight, "f32"), PRISM_OPERAND(Args, x, "f32")},
              {{[](Args& a) { a.index = I32({3, 3}); }, "index dim 4 is 3, want 4"},
               {[](Args& a) { a.weight = F32({4, 2}); }, "weight dim P is 2, want 3"},
               {[](Args& a) { a.x = F32({3, 7}); }, "x dim C is 7, want 8"}});
}

TEST(ConcatColumnsTest, SaysWhatIsWrong) {
  using Args = ConcatColumnsArgs;
  Check<Args>(
      {"ConcatColumns", ConcatColumns, &OpTable::concat_columns, {.parts = F32({2, 3, 4}), .y = F32({3, 7})}},
      {PRISM_OPERAND(Args, parts, "f32"), PRISM_OPERAND(Args, y, "f32")},
      {{[](Args& a) { a.y = F32({3, 9}); }, "y has more columns than the parts together"},
       {[](Args& a) { a.y = F32({2, 8}); }, "y dim T is 2, want 3"}});
}

TEST(SumPartialsTest, SaysWhatIsWrong) {
  using Args = SumPartialsArgs;
  Check<Args>(
      {"SumPartials", SumPartials, &OpTable::sum_partials, {.partials = F32({2, 3, 4}), .y = F32({3, 4})}},
      {PRISM_OPERAND(Args, partials, "f32"), PRISM_OPERAND(Args, y, "f32")},
      {{[](Args& a) { a.partials = F32({3, 3, 4}); }, "partials must be of 1, 2 or 4 ranks"},
       {[](Args& a) { a.y = F32({3, 5}); }, "y dim C is 5, want 4"}});
}

TEST(PackLinearTest, SaysWhatIsWrong) {
  using Args = PackLinearArgs;
  LinearWeight packed;
  Check<Args>({"PackLinear",
               PackLinear,
               &OpTable::pack_linear,
               {.weight = Some(DType::kBF16, {5, 32}),
                .order = SumOrder::kLeaves,
                .in_total = 128,
                .in_begin = 32,
                .out = &packed}},
              {PRISM_OPERAND(Args, weight, "weight must be bf16 or f32")},
              {{[](Args& a) { a.in_begin = 16; }, "columns [16, 48) of 128 are not a run of whole leaves"},
               {[](Args& a) { a.in_total = 256; }, "columns [32, 64) of 256 are not a run of whole leaves"},
               {[](Args& a) { a.order = SumOrder::kChain; },
                "columns [32, 64) of 128 are not a run of whole leaves"}});
}

TEST(PackLinearTest, RefusesMiddleLeavesThatNoTreeOfPairsHolds) {
  using Args = PackLinearArgs;
  LinearWeight packed;
  OpCheck<Args> check(
      "PackLinear", PackLinear, &OpTable::pack_linear,
      {.weight = F32({5, 64}), .order = SumOrder::kLeaves, .in_total = 128, .in_begin = 64, .out = &packed});
  check.ExpectValidArgumentsReachTheTable();
  check.ExpectRefuses(
      {[](Args& a) { a.in_begin = 32; }, "columns [32, 96) of 128 are not a run of whole leaves"});
}

TEST(LinearTest, SaysWhatIsWrong) {
  using Args = LinearArgs;
  LinearWeight weight;
  weight.out_features = 5;
  weight.in_features = weight.in_total = 8;
  Check<Args>({"Linear",
               Linear,
               &OpTable::linear,
               {.x = F32({3, 8}), .weight = &weight, .bias = TensorView(), .y = F32({3, 5})}},
              {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, y, "f32")},
              {{[](Args& a) { a.x = F32({3, 9}); }, "x dim K is 9, want 8"},
               {[](Args& a) { a.y = F32({3, 6}); }, "y dim N is 6, want 5"},
               {[](Args& a) { a.y = F32({2, 5}); }, "y dim T is 2, want 3"},
               {[](Args& a) { a.bias = F32({4}); }, "bias dim N is 4, want 5"},
               {[](Args& a) { a.bias = I32({5}); }, "bias is i32, want f32"}});
}

TEST(MoeRouterTest, SaysWhatIsWrong) {
  using Args = MoeRouterArgs;
  Check<Args>({"MoeRouter",
               MoeRouter,
               &OpTable::moe_router,
               {.logits = F32({3, 8}), .ids = I32({3, 2}), .weights = F32({3, 2})}},
              {PRISM_OPERAND(Args, logits, "f32"), PRISM_OPERAND(Args, ids, "i32"),
               PRISM_OPERAND(Args, weights, "f32")},
              {{[](Args& a) { a.weights = F32({3, 3}); }, "weights dim J is 3, want 2"},
               {[](Args& a) {
                  a.ids = I32({3, 9});
                  a.weights = F32({3, 9});
                },
                "more experts chosen than there are"},
               {[](Args& a) {
                  a.ids = I32({3, 0});
                  a.weights = F32({3, 0});
                },
                "more experts chosen than there are"}});
}

// Two experts from 8 to 6 and back.
std::vector<MoeExpert> TwoExperts() {
  std::vector<MoeExpert> experts(2);
  for (MoeExpert& expert : experts) {
    expert.gate_up.out_features = 12;
    expert.gate_up.in_features = 8;
    expert.down.out_features = 8;
    expert.down.in_features = 6;
  }
  return experts;
}

TEST(MoeExpertsTest, SaysWhatIsWrong) {
  using Args = MoeExpertsArgs;
  const std::vector<MoeExpert> experts = TwoExperts();
  std::vector<MoeExpert> odd = TwoExperts(), wide = TwoExperts();
  odd[1].gate_up.out_features = 11;
  wide[1].gate_up.in_features = 9;
  Check<Args>({"MoeExperts",
               MoeExperts,
               &OpTable::moe_experts,
               {.x = F32({3, 8}),
                .ids = I32({3, 2}),
                .weights = F32({3, 2}),
                .experts = experts,
                .first_expert = 2,
                .num_experts = 4,
                .y = F32({3, 8})}},
              {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, ids, "i32"),
               PRISM_OPERAND(Args, weights, "f32"), PRISM_OPERAND(Args, y, "f32")},
              {{[](Args& a) { a.first_expert = 3; }, "experts held reach past the last id"},
               {[](Args& a) { a.first_expert = -1; }, "experts held reach past the last id"},
               {[](Args& a) { a.y = F32({3, 9}); }, "y dim H is 9, want 8"},
               {[&](Args& a) { a.experts = wide; }, "dim H is 8, want 9"},
               {[&](Args& a) { a.experts = odd; }, "gate_up must have twice the rows of down's columns"}});
}

TEST(KvWriteTest, SaysWhatIsWrong) {
  using Args = KvWriteArgs;
  Check<Args>({"KvWrite",
               KvWrite,
               &OpTable::kv_write,
               {.qkv = F32({3, 40}),
                .k_column = 16,
                .v_column = 24,
                .slots = I32({3}),
                .kv = {.k = F32({7, 2, 4, 64}), .v = F32({7, 2, 64, 4})}}},
              {PRISM_OPERAND(Args, qkv, "f32"), PRISM_OPERAND(Args, slots, "i32"),
               PRISM_OPERAND(Args, kv.k, "f32"), PRISM_OPERAND(Args, kv.v, "f32")},
              {{[](Args& a) { a.slots = I32({4}); }, "slots dim T is 4, want 3"},
               {[](Args& a) { a.kv.k = F32({7, 2, 4, 32}); }, "kv.k dim W is 32, want 64"},
               {[](Args& a) { a.kv.v = F32({7, 2, 4, 64}); }, "kv.v dim W is 4, want 64"},
               {[](Args& a) { a.kv.v = F32({6, 2, 64, 4}); }, "kv.v dim P is 6, want 7"},
               {[](Args& a) { a.k_column = 33; }, "keys or values reach past the last column"},
               {[](Args& a) { a.v_column = -1; }, "keys or values reach past the last column"}});
}

TEST(AttentionPrepareTest, SaysWhatIsWrong) {
  using Args = AttentionPrepareArgs;
  Check<Args>(
      {"AttentionPrepare",
       AttentionPrepare,
       &OpTable::attention_prepare,
       {.qkv = F32({3, 32}),
        .num_heads = 4,
        .q_weight = F32({4}),
        .k_weight = F32({4}),
        .epsilon = 1e-6f,
        .cos = F32({3, 2}),
        .sin = F32({3, 2}),
        .slots = I32({3}),
        .kv = {.k = F32({7, 2, 4, 64}), .v = F32({7, 2, 64, 4})}}},
      {PRISM_OPERAND(Args, qkv, "f32"), PRISM_OPERAND(Args, q_weight, "f32"),
       PRISM_OPERAND(Args, k_weight, "f32"), PRISM_OPERAND(Args, cos, "f32"), PRISM_OPERAND(Args, sin, "f32"),
       PRISM_OPERAND(Args, slots, "i32"), PRISM_OPERAND(Args, kv.k, "f32"), PRISM_OPERAND(Args, kv.v, "f32")},
      {{[](Args& a) { a.qkv = F32({3, 36}); }, "qkv must have the columns of its heads"},
       {[](Args& a) { a.num_heads = 0; }, "qkv must have the columns of its heads"},
       {[](Args& a) { a.k_weight = F32({5}); }, "k_weight dim D is 5, want 4"},
       {[](Args& a) { a.slots = I32({2}); }, "slots dim T is 2, want 3"},
       {[](Args& a) { a.kv.v = F32({7, 2, 64, 5}); }, "kv.v dim D is 5, want 4"},
       {[](Args& a) {
          a.cos = F32({3, 4});
          a.sin = F32({3, 4});
        },
        "cos must have half as many columns as a head"},
       {[](Args& a) { a.epsilon = 0.0f; }, "epsilon must be above 0"}});
}

TEST(CastTest, SaysWhatIsWrong) {
  using Args = CastArgs;
  Check<Args>({"Cast", Cast, &OpTable::cast, {.x = F32({3, 8}), .y = F32({3, 8})}},
              {PRISM_OPERAND(Args, x, "f32"), PRISM_OPERAND(Args, y, "f32")},
              {{[](Args& a) { a.y = F32({3, 7}); }, "y dim C is 7, want 8"}});
}

// On a backend of bf16 activations.
TEST(ActivationTypeTest, IsWhatTheChecksAskFor) {
  FakeBackend backend;
  backend.activation = DType::kBF16;
  FakeStream stream(&backend);
  const TensorView bf16 = Some(DType::kBF16, {3, 8});
  EXPECT_EQ(Gelu(stream, {.x = F32({3, 8}), .form = GeluForm::kErf}),
            absl::InvalidArgumentError("Gelu: x is f32, want bf16"));
  EXPECT_EQ(Gelu(stream, {.x = bf16, .form = GeluForm::kErf}).code(), absl::StatusCode::kUnimplemented);
  RmsNormArgs norm = {.x = F32({3, 8}), .weight = F32({8}), .y = bf16, .epsilon = 1e-6f};
  EXPECT_EQ(RmsNorm(stream, norm).code(), absl::StatusCode::kUnimplemented);
  norm.y = F32({3, 8});
  EXPECT_EQ(RmsNorm(stream, norm).code(), absl::StatusCode::kUnimplemented);
  norm.y = I32({3, 8});
  EXPECT_EQ(RmsNorm(stream, norm), absl::InvalidArgumentError("RmsNorm: y is i32, want bf16 or f32"));
  EXPECT_EQ(Add(stream, {.x = bf16, .y = bf16}), absl::InvalidArgumentError("Add: x is bf16, want f32"));
}

TEST(AttentionPagedTest, SaysWhatIsWrong) {
  using Args = AttentionPagedArgs;
  Check<Args>(
      {"AttentionPaged",
       AttentionPaged,
       &OpTable::attention_paged,
       {.qkv = F32({3, 32}),
        .num_heads = 4,
        .kv = {.k = F32({7, 2, 4, 64}), .v = F32({7, 2, 64, 4})},
        .query_starts = I32({3}),
        .context_lengths = I32({2}),
        .page_tables = I32({2, 5}),
        .out = F32({3, 16}),
        .scale = 0.5f}},
      {PRISM_OPERAND(Args, qkv, "f32"), PRISM_OPERAND(Args, kv.k, "f32"), PRISM_OPERAND(Args, kv.v, "f32"),
       PRISM_OPERAND(Args, query_starts, "i32"), PRISM_OPERAND(Args, context_lengths, "i32"),
       PRISM_OPERAND(Args, page_tables, "i32"), PRISM_OPERAND(Args, out, "f32")},
      {{[](Args& a) { a.query_starts = I32({2}); }, "query_starts dim B is 2, want 3"},
       {[](Args& a) { a.page_tables = I32({3, 5}); }, "page_tables dim S is 3, want 2"},
       {[](Args& a) { a.num_heads = 3; }, "query heads must be a multiple of KV heads"},
       {[](Args& a) { a.num_heads = 0; }, "query heads must be a multiple of KV heads"},
       {[](Args& a) { a.out = F32({3, 15}); }, "out dim O is 15, want 16"},
       {[](Args& a) { a.qkv = F32({3, 15}); }, "queries reach past the last column"}});
}

TEST(AttentionVarlenTest, SaysWhatIsWrong) {
  using Args = AttentionVarlenArgs;
  Check<Args>(
      {"AttentionVarlen",
       AttentionVarlen,
       &OpTable::attention_varlen,
       {.qkv = F32({9, 24}), .num_heads = 2, .segment_starts = I32({3}), .out = F32({9, 8}), .scale = 0.5f}},
      {PRISM_OPERAND(Args, qkv, "f32"), PRISM_OPERAND(Args, segment_starts, "i32"),
       PRISM_OPERAND(Args, out, "f32")},
      {{[](Args& a) { a.out = F32({9, 7}); }, "qkv must have three times the columns of out"},
       {[](Args& a) { a.segment_starts = I32({0}); }, "segment_starts is empty"},
       {[](Args& a) { a.num_heads = 3; }, "columns do not divide by heads"},
       {[](Args& a) { a.num_heads = 0; }, "columns do not divide by heads"}});
}

}  // namespace
}  // namespace prism
