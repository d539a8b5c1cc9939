// replay.cpp - many operators in one call: what a runner of files repeats. No arithmetic here.
#include "ops/box.h"
#include <map>
#include <memory>
#include <mutex>

namespace {
using lgr::OptTensor;
using lgr::Tensor;

// How an argument stands in a program: a tag, then what it says. linger/onnx/native_plan.py writes it.
enum Tag : int64_t { TENSOR, OPTIONAL_TENSOR, NONE, INT, BOOL, INTS, TENSORS, CONTIGUOUS, TYPE };
constexpr int64_t kView = -1, kPad = -2;
const char *const kTorch[] = {"aten::relu", "aten::contiguous", "aten::cat", "aten::index_select",
                              "aten::_to_copy"};
constexpr int64_t kFirstTorch = -3; // and downwards: those of torch, in this order
constexpr int kStack = 32;

// Reads a program, number by number; every read is checked.
class Reader {
  public:
    Reader(const std::vector<int64_t> &words, size_t at) : words_(words), at_(at) {}
    bool more() const { return at_ < words_.size(); }
    int64_t next() {
        STD_TORCH_CHECK(more(), "replay: the program ends inside a step");
        return words_[at_++];
    }
    int64_t below(int64_t limit) {
        const int64_t v = next();
        STD_TORCH_CHECK(v >= 0 && v < limit, "replay: ", v, " is not in [0, ", limit, ")");
        return v;
    }
    std::vector<int64_t> list() {
        std::vector<int64_t> found(static_cast<size_t>(below(1 << 20)));
        for (int64_t &v : found) v = next();
        return found;
    }

  private:
    const std::vector<int64_t> &words_;
    size_t at_;
};

// slots, results, then steps: operator, results, arguments, slots that nobody reads any more.
struct Program {
    std::vector<Tensor> constants; // the first slots behind the inputs
    std::vector<int64_t> words;
};

std::mutex lock;
std::map<int64_t, std::shared_ptr<const Program>> programs;
int64_t last_id = 0;

using Slots = std::vector<OptTensor>;

const Tensor &at(const Slots &slots, Reader &r) {
    const OptTensor &t = slots[static_cast<size_t>(r.below(static_cast<int64_t>(slots.size())))];
    STD_TORCH_CHECK(t.has_value(), "replay: a slot is read before it is written");
    return *t;
}

StableIValue argument(const Slots &slots, Reader &r) {
    using torch::stable::detail::from;
    switch (r.next()) {
    case TENSOR: return from(at(slots, r));
    case OPTIONAL_TENSOR: return from(OptTensor(at(slots, r)));
    case NONE: return from(OptTensor(std::nullopt));
    case INT: return from(r.next());
    case BOOL: return from(r.next() != 0);
    case INTS: return from(r.list());
    case TYPE: {
        using lgr::ScalarType;
        const ScalarType all[] = {ScalarType::Char, ScalarType::Short, ScalarType::Int};
        return from(std::optional<ScalarType>(all[r.below(3)]));
    }
    case CONTIGUOUS: return from(torch::headeronly::MemoryFormat::Contiguous);
    case TENSORS: {
        std::vector<Tensor> list;
        for (int64_t n = r.below(1 << 20); n > 0; --n) list.push_back(at(slots, r));
        return from(list);
    }
    default: STD_TORCH_CHECK(false, "replay: an unknown kind of argument"); return 0;
    }
}

Tensor view(const Tensor &base, Reader &r) {
    const std::vector<int64_t> sizes = r.list(), strides = r.list();
    const int64_t offset = r.next();
    AtenTensorHandle made = nullptr;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch__reinterpret_tensor(base.get(), static_cast<int64_t>(sizes.size()), sizes.data(),
                                       strides.data(), offset, &made));
    return Tensor(made);
}

// What linger has no operator of its own for.
void torch_operator(int64_t which, StableIValue *stack) {
    constexpr int64_t n = sizeof kTorch / sizeof kTorch[0];
    STD_TORCH_CHECK(which >= 0 && which < n, "replay: there is no operator ", which);
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(kTorch[which], "", stack, TORCH_ABI_VERSION));
}

void step(Slots &slots, Reader &r) {
    const int64_t index = r.next();
    const std::vector<int64_t> results = r.list();
    std::vector<Tensor> made;
    if (index == kView) {
        made.push_back(view(at(slots, r), r));
    } else if (index == kPad) { // with zeros
        const Tensor &x = at(slots, r);
        const std::vector<int64_t> widths = r.list();
        made.push_back(torch::stable::pad(x, widths));
    } else {
        const auto &all = lgr::adapters();
        StableIValue stack[kStack];
        const int64_t n = r.below(kStack);
        for (int64_t i = 0; i < n; ++i) stack[i] = argument(slots, r);
        if (index <= kFirstTorch) {
            torch_operator(kFirstTorch - index, stack);
        } else {
            STD_TORCH_CHECK(index >= 0 && index < static_cast<int64_t>(all.size()),
                            "replay: there is no operator ", index);
            all[static_cast<size_t>(index)].second(stack, static_cast<uint64_t>(n), results.size());
        }
        for (size_t i = 0; i < results.size(); ++i)
            made.push_back(torch::stable::detail::to<Tensor>(stack[i]));
    }
    const auto count = static_cast<int64_t>(slots.size());
    for (size_t i = 0; i < results.size(); ++i) {
        STD_TORCH_CHECK(results[i] >= 0 && results[i] < count, "replay: no slot ", results[i]);
        slots[static_cast<size_t>(results[i])] = made[i];
    }
    for (const int64_t dead : r.list()) {
        STD_TORCH_CHECK(dead >= 0 && dead < count, "replay: no slot ", dead);
        slots[static_cast<size_t>(dead)].reset();
    }
}

int64_t replay_index(const Tensor &, const Tensor &name) {
    const auto *text = static_cast<const char *>(name.const_data_ptr());
    const std::string wanted(text, static_cast<size_t>(name.numel()));
    const auto &all = lgr::adapters();
    for (size_t i = 0; i < all.size(); ++i)
        if (all[i].first == wanted) return static_cast<int64_t>(i);
    return -1;
}

int64_t replay_make(const std::vector<Tensor> &constants, const Tensor &words) {
    STD_TORCH_CHECK(words.scalar_type() == lgr::ScalarType::Long && words.is_contiguous(),
                    "replay_make: the program must be a list of int64");
    const int64_t *from = words.const_data_ptr<int64_t>();
    const auto made = std::make_shared<const Program>(
        Program{constants, std::vector<int64_t>(from, from + words.numel())});
    const std::lock_guard<std::mutex> hold(lock);
    programs[++last_id] = made;
    return last_id;
}

void replay_free(const Tensor &, int64_t id) {
    const std::lock_guard<std::mutex> hold(lock);
    programs.erase(id);
}

std::vector<Tensor> replay_run(const std::vector<Tensor> &inputs, int64_t id) {
    std::shared_ptr<const Program> program;
    {
        const std::lock_guard<std::mutex> hold(lock);
        const auto found = programs.find(id);
        STD_TORCH_CHECK(found != programs.end(), "replay_run: there is no program ", id);
        program = found->second;
    }
    Reader r(program->words, 0);
    Slots slots(static_cast<size_t>(r.below(1 << 24)));
    const std::vector<int64_t> results = r.list();
    STD_TORCH_CHECK(inputs.size() + program->constants.size() <= slots.size(),
                    "replay_run: too many inputs");
    size_t i = 0;
    for (const Tensor &t : inputs) slots[i++] = t;
    for (const Tensor &t : program->constants) slots[i++] = t;
    while (r.more()) step(slots, r);
    std::vector<Tensor> out;
    for (const int64_t s : results) {
        const auto count = static_cast<int64_t>(slots.size());
        STD_TORCH_CHECK(s >= 0 && s < count && slots[static_cast<size_t>(s)],
                        "replay_run: a result is missing");
        out.push_back(*slots[static_cast<size_t>(s)]);
    }
    return out;
}
} // namespace

LGR_OPERATORS({"replay_index(Tensor any, Tensor name) -> int", LGR_BOX(replay_index),
               lgr::Devices::CPU},
              {"replay_make(Tensor[] constants, Tensor program) -> int", LGR_BOX(replay_make),
               lgr::Devices::CPU},
              {"replay_free(Tensor any, int id) -> ()", LGR_BOX(replay_free), lgr::Devices::CPU},
              {"replay_run(Tensor[] inputs, int id) -> Tensor[]", LGR_BOX(replay_run),
               lgr::Devices::CPU});
