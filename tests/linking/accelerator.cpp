// The first program of the README on the accelerator that is named, with more configuration: prints what the library logs, then how it went.
#define main first_program
#include "../../cpp-examples/quickstart.cpp"
#undef main

#include <string>

int main(int, char **arguments) {
    te::Host host;
    host.log = [](te::LogLevel, std::string_view text) { std::printf("log: %.*s\n", int(text.size()), text.data()); };
    try {
        te::Engine engine("{epochs: 1, warmup_epochs: 0, data_loader: {params: {batch_size: 4}}, logger: {tensorboard: false},"
                          " model: {dim: 32, encoder_depth: 1, decoder_depth: 1}, accelerator: " + std::string(arguments[1]) + arguments[2] + "}",
                          std::make_shared<Road>(), {}, host);
        std::printf("trained: %zu steps\n", engine.fit().steps);
        for (const auto &[name, value] : engine.test().metrics) std::printf("%s: %.17g\n", name.c_str(), value);
        for (const te::Candidate &candidate : engine.predict(Road().load(0)).candidates)
            std::printf("candidate/x: %.17g\n", candidate.states.back().x);
    } catch (const te::Error &error) {
        std::printf("error: %s\n", error.what());
    }
}
