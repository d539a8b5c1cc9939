// box.h - registers operators: schema and adapter side by side, where an adapter's argument may stand for several of the
// schema's. A quantizer's state is six tensors in every schema; here alone they are told apart.
#pragma once
#include "lgr/observe.h"
#include "ops/tensor.h"
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

// The schema text of Statistics, State and Output, and of the results of an operator with an output quantizer.
#define LGR_STATISTICS                                                                             \
    "Tensor(a!) running, Tensor(b!) is_init, Tensor(c!) scale, Tensor(d!) n_batches, "             \
    "Tensor(e!) n_skipped"
#define LGR_STATE LGR_STATISTICS ", Tensor? threshold"
#define LGR_FORMAT "int bits, float clamp, int rounding, int flags"
#define LGR_OUTPUT LGR_STATE ", " LGR_FORMAT
#define LGR_CODED "(Tensor value, Tensor codes, Tensor scale_now, Tensor mask, Tensor slope)"
// The whole schema of one whose operands stand in front of the state.
#define LGR_QUANTIZED(name, operands) name "(" operands ", " LGR_OUTPUT ") -> " LGR_CODED
#define LGR_TWO_CODED "Tensor x, Tensor x_scale, Tensor y, Tensor y_scale"

namespace lgr {
using OptTensor = std::optional<Tensor>;

// The five tensors that a quantizer moves, one element each.
struct Statistics {
    Tensor running, is_init, scale, n_batches, n_skipped;
};
// The same with the threshold of TQT; none: MOM.
struct State : Statistics {
    OptTensor threshold;
    State(Statistics s, OptTensor t) : Statistics(std::move(s)), threshold(std::move(t)) {}
};

// How one call quantizes, checked.
struct Format {
    int32_t bits, rounding;
    bool observe, relu, grad;
    double clamp;
};
// The same as the schema has it.
struct FormatArguments {
    int64_t bits;
    double clamp;
    int64_t rounding, flags;
    Format checked(const char *op) const {
        return {to_bits(bits, op),       to_rounding(rounding, op), (flags & LGR_OBSERVE) != 0,
                (flags & LGR_RELU) != 0, (flags & LGR_GRAD) != 0,   clamp};
    }
};
// One integer instead of three: an argument costs a call 0.2 us. Packed by linger/ops/spec.py.
inline FormatArguments unpacked(int64_t settings, double clamp) {
    return {settings & 255, clamp, settings >> 8 & 255, settings >> 16};
}
// The last ten arguments of most operators with an output quantizer.
struct Output {
    State state;
    FormatArguments format;
};

// How many of the schema's arguments T takes, and how.
template <class T> struct Argument {
    static constexpr size_t count = 1;
    static T take(StableIValue *at) { return torch::stable::detail::to<T>(*at); }
};
template <> struct Argument<Statistics> {
    static constexpr size_t count = 5;
    static Statistics take(StableIValue *at) {
        using One = Argument<Tensor>;
        return {One::take(at), One::take(at + 1), One::take(at + 2), One::take(at + 3),
                One::take(at + 4)};
    }
};
template <> struct Argument<State> {
    static constexpr size_t count = 6;
    static State take(StableIValue *at) {
        return {Argument<Statistics>::take(at), Argument<OptTensor>::take(at + 5)};
    }
};
template <> struct Argument<FormatArguments> {
    static constexpr size_t count = 4;
    static FormatArguments take(StableIValue *at) {
        return {Argument<int64_t>::take(at), Argument<double>::take(at + 1),
                Argument<int64_t>::take(at + 2), Argument<int64_t>::take(at + 3)};
    }
};
template <> struct Argument<Output> {
    static constexpr size_t count = 10;
    static Output take(StableIValue *at) {
        return {Argument<State>::take(at), Argument<FormatArguments>::take(at + 6)};
    }
};

// The stack's calling convention around an adapter.
template <auto adapter> struct Box;
template <class R, class... A, R (*adapter)(A...)> struct Box<adapter> {
    static void call(StableIValue *stack, uint64_t given, uint64_t) {
        constexpr size_t wanted = (Argument<std::decay_t<A>>::count + ... + 0);
        STD_TORCH_CHECK(given == wanted, "linger: a schema has ", given,
                        " arguments, its adapter takes ", wanted);
        run(stack, std::index_sequence_for<A...>());
    }

  private:
    template <size_t... I> static void run(StableIValue *stack, std::index_sequence<I...>) {
        constexpr size_t counts[] = {Argument<std::decay_t<A>>::count..., 0};
        constexpr auto at = [](const size_t *c, size_t i) {
            size_t sum = 0;
            while (i-- > 0) sum += c[i];
            return sum;
        };
        std::tuple<std::decay_t<A>...> args{
            Argument<std::decay_t<A>>::take(stack + at(counts, I))...};
        if constexpr (std::is_void_v<R>) std::apply(adapter, args);
        else give(stack, std::apply(adapter, args));
    }
    template <class T> static void give(StableIValue *stack, const T &result) {
        stack[0] = torch::stable::detail::from(result);
    }
    template <class... T> static void give(StableIValue *stack, const std::tuple<T...> &results) {
        std::apply(
            [stack](const T &...each) {
                size_t i = 0;
                ((stack[i++] = torch::stable::detail::from(each)), ...);
            },
            results);
    }
};

// The adapters of all files by name, in the order of their registration: for replay.cpp.
using Adapter = void (*)(StableIValue *, uint64_t, uint64_t);
inline std::vector<std::pair<std::string, Adapter>> &adapters() {
    static std::vector<std::pair<std::string, Adapter>> all;
    return all;
}

// One operator: "name(arguments) -> results" and its adapter, which also serves CUDA but where it says CPU.
enum class Devices { CPU, CPU_AND_CUDA };
struct Operator {
    const char *schema;
    void (*adapter)(StableIValue *, uint64_t, uint64_t);
    Devices devices = Devices::CPU_AND_CUDA;
};

// Defines the operators of a file, and registers their adapters. A static object of that file.
class Operators {
  public:
    Operators(const char *file, std::initializer_list<Operator> all)
        : schemas_(Kind::FRAGMENT, "linger", nullptr, file, 0),
          cpu_(Kind::IMPL, "linger", "CPU", file, 0), cuda_(Kind::IMPL, "linger", "CUDA", file, 0) {
        for (const Operator &one : all) {
            const std::string schema = one.schema, name = schema.substr(0, schema.find('('));
            adapters().emplace_back(name, one.adapter);
            const bool twin = LGR_HAVE_CUDA && one.devices == Devices::CPU_AND_CUDA;
#if LGR_EMULATE
            if (twin) cpu_.impl(name.c_str(), one.adapter); // in place of the CPU's own
#else
            schemas_.def(one.schema);
            cpu_.impl(name.c_str(), one.adapter);
            if (twin) cuda_.impl(name.c_str(), one.adapter);
#endif
        }
    }

  private:
    using Library = torch::stable::detail::StableLibrary;
    using Kind = Library::Kind;
    Library schemas_, cpu_, cuda_;
};
} // namespace lgr

#define LGR_BOX(adapter) lgr::Box<&adapter>::call
#define LGR_OPERATORS(...) static const lgr::Operators operators(__FILE__, {__VA_ARGS__})
