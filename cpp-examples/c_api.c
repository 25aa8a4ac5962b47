/* The C interface in plain C11: a small host, and every way in which a host, its data or the library may fail.
 * Each line asserts what it shows; the program prints the number of checks. */
#define _XOPEN_SOURCE 700
#include "training_engine.h"

#include <ftw.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int checks = 0;

static void check(int condition, const char *what, int line) {
    ++checks;
    if (condition) return;
    fprintf(stderr, "c_api.c:%d: %s\n  last error: %s\n", line, what, te_last_error());
    exit(1);
}

static void check_fails(TeStatus status, TeStatus expected, const char *text, const char *what, int line) {
    ++checks;
    if (status == expected && strstr(te_last_error(), text) != NULL) return;
    fprintf(stderr, "c_api.c:%d: %s\n  gave %d, expected %d with '%s'\n  last error: %s\n", line, what, status, expected, text, te_last_error());
    exit(1);
}

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)
#define OK(call) check((call) == TE_OK, #call, __LINE__)
#define FAILS(call, status, text) check_fails((call), (status), (text), #call, __LINE__)

/* ---- a host: cars on a straight road of two lanes ---- */

enum { SCENARIOS = 16, AGENTS = 3 };

static const char CONFIG[] =
    "model: {dim: 32, encoder_depth: 1, decoder_depth: 1, num_heads: 2, num_modes: 6, radius: 30}\n"
    "data_loader: {params: {batch_size: 2, num_workers: 1, drop_last: false}}\n"
    "custom_trainer: {use_collision_loss: false}\n"
    "epochs: 1\n"
    "warmup_epochs: 0\n";

static TePoint lines[3][2] = {{{-100, -1.75}, {300, -1.75}}, {{-100, 1.75}, {300, 1.75}}, {{-100, 5.25}, {300, 5.25}}};
static TePoint centers[2][2] = {{{-100, 0}, {300, 0}}, {{-100, 3.5}, {300, 3.5}}};

/* Arrays of one scenario; `load` makes them and `unload` frees them. */
typedef struct {
    char token[32];
    TeEgoState ego[TE_TOTAL_STEPS];
    TeAgentState states[AGENTS][TE_TOTAL_STEPS];
    TeAgent agents[AGENTS];
    const char *route[1];
    TeTrafficLight lights[1];
    TeMap *map;
} Arrays;

/* What the host does wrong with a scenario. */
typedef enum {
    NOTHING, SKIP, FAIL, FAIL_WITHOUT_WORDS, SIZE_ZERO, SIZE_RAISED, NULL_TOKEN, TOKEN_NOT_UTF8, NULL_MAP, NULL_EGO, EGO_COUNT, NULL_AGENTS,
    AGENT_COUNT, AGENT_SIZE, AGENT_KIND, AGENT_STATES, AGENT_NAN, EGO_INFINITE, NULL_ROUTE, LIGHT_STATE, STATIC_COUNT, VEHICLE_WIDTH,
    INFO_FAIL, INFO_SPLIT
} Fault;

typedef struct {
    size_t count;
    Fault faults[SCENARIOS];
    int map_of_its_own; /* each scenario brings a map and frees it in unload */
    int loads, unloads, releases;
} Host;

static void make_map(TeMap **map) {
    TeLane lanes[2];
    memset(lanes, 0, sizeof lanes);
    for (int i = 0; i < 2; ++i) {
        lanes[i].struct_size = sizeof lanes[i];
        lanes[i].id = i == 0 ? "right" : "left";
        lanes[i].roadblock_id = "road";
        lanes[i].has_speed_limit = 1;
        lanes[i].speed_limit = 14;
        lanes[i].centerline = centers[i];
        lanes[i].right = lines[i];
        lanes[i].left = lines[i + 1];
        lanes[i].centerline_count = lanes[i].left_count = lanes[i].right_count = 2;
    }
    TeMapDescription description = {.struct_size = sizeof description, .name = "road", .lanes = lanes, .lane_count = 2};
    OK(te_map_new(&description, map));
}

static TeMap *shared_map;

static Arrays *make_arrays(size_t index, TeMap *map, TeScenario *out) {
    Arrays *arrays = calloc(1, sizeof *arrays);
    const double speed = 6 + (double)(index % 5);
    snprintf(arrays->token, sizeof arrays->token, "scenario-%zu", index);
    for (int t = 0; t < TE_TOTAL_STEPS; ++t) {
        const double seconds = (t - TE_HISTORY_STEPS + 1) * TE_STEP_SECONDS;
        arrays->ego[t] = (TeEgoState){.x = speed * seconds, .vx = speed};
        for (int a = 0; a < AGENTS; ++a) {
            arrays->states[a][t] = (TeAgentState){
                .x = 15 + 12 * a + speed * seconds, .y = a == 1 ? 3.5 : 0, .vx = speed, .width = 1.9, .length = 4.6, .valid = 1};
        }
    }
    static const char *const ids[AGENTS] = {"first", "second", "third"};
    for (int a = 0; a < AGENTS; ++a) {
        arrays->agents[a] = (TeAgent){.struct_size = sizeof(TeAgent), .id = ids[a], .states = arrays->states[a],
                                      .state_count = TE_TOTAL_STEPS, .kind = TE_AGENT_VEHICLE};
    }
    arrays->route[0] = "road";
    arrays->lights[0] = (TeTrafficLight){.lane_id = "right", .state = TE_LIGHT_GREEN};
    arrays->map = map;
    *out = (TeScenario){.struct_size = sizeof *out, .token = arrays->token, .log_name = "log", .scenario_type = "straight", .map = map,
                        .ego = arrays->ego, .ego_count = TE_TOTAL_STEPS, .agents = arrays->agents, .agent_count = AGENTS,
                        .route = arrays->route, .route_count = 1, .lights = arrays->lights, .light_count = 1, .host_data = arrays};
    return arrays;
}

/* Spoils a scenario as the host is told to. */
static void spoil(Fault fault, Arrays *arrays, TeScenario *out) {
    switch (fault) {
    case SIZE_ZERO: out->struct_size = 0; break;
    case SIZE_RAISED: out->struct_size = sizeof *out + 64; break;
    case NULL_TOKEN: out->token = NULL; break;
    case TOKEN_NOT_UTF8: out->token = "\xff\xfe"; break;
    case NULL_MAP: out->map = NULL; break;
    case NULL_EGO: out->ego = NULL; break;
    case EGO_COUNT: out->ego_count = 22; break;
    case NULL_AGENTS: out->agents = NULL; break;
    case AGENT_COUNT: out->agent_count = SIZE_MAX; break;
    case AGENT_SIZE: arrays->agents[1].struct_size = 8; break;
    case AGENT_KIND: arrays->agents[1].kind = 77; break;
    case AGENT_STATES: arrays->agents[2].state_count = 5; break;
    case AGENT_NAN: arrays->states[1][7].vy = NAN; break;
    case EGO_INFINITE: arrays->ego[20].x = INFINITY; break;
    case NULL_ROUTE: arrays->route[0] = NULL; break;
    case LIGHT_STATE: arrays->lights[0].state = -1; break;
    case STATIC_COUNT: out->static_object_count = 4; break;
    case VEHICLE_WIDTH: out->vehicle = (TeVehicle){-2, 4, 1, 3}; break;
    default: break;
    }
}

static size_t host_size(void *user) { return ((Host *)user)->count; }

static int32_t host_info(void *user, size_t index, TeScenarioInfo *out) {
    const Host *host = user;
    static char token[32];
    CHECK(out->struct_size == sizeof *out && out->token == NULL);
    snprintf(token, sizeof token, "scenario-%zu", index);
    out->token = token;
    out->log_name = "log";
    out->scenario_type = "straight";
    out->map_name = "road";
    out->start_us = 1000000 * (int64_t)index;
    out->split = index % 4 == 2 ? TE_SPLIT_VALIDATION : index % 4 == 3 ? TE_SPLIT_TEST : TE_SPLIT_TRAIN;
    if (host->faults[index] == INFO_SPLIT) out->split = 9;
    if (host->faults[index] == INFO_FAIL) {
        te_callback_error("the index is lost");
        return -5;
    }
    return 0;
}

static int32_t host_load(void *user, size_t index, TeScenario *out) {
    Host *host = user;
    TeMap *map = shared_map;
    CHECK(index < host->count);
    const Fault fault = host->faults[index];
    CHECK(out->struct_size == sizeof *out && out->ego == NULL);
    if (fault == SKIP) {
        te_callback_error("no lane was recorded");
        return 1;
    }
    if (fault == FAIL) {
        te_callback_error("the disk is gone");
        return -1;
    }
    if (fault == FAIL_WITHOUT_WORDS) return -42;
    if (host->map_of_its_own) make_map(&map); /* maps may be made in a callback */
    spoil(fault, make_arrays(index, map, out), out);
    ++host->loads;
    return 0;
}

static void host_unload(void *user, size_t index, TeScenario *scenario) {
    Host *host = user;
    Arrays *arrays = scenario->host_data;
    CHECK(index < host->count);
    if (host->map_of_its_own) OK(te_map_free(arrays->map));
    free(arrays);
    ++host->unloads;
}

static void host_release(void *user) { ++((Host *)user)->releases; }

static TeSource table_of(Host *host) {
    return (TeSource){.struct_size = sizeof(TeSource), .user_data = host, .size = host_size, .info = host_info, .load = host_load,
                      .unload = host_unload, .release = host_release};
}

static Host new_host(void) { return (Host){.count = SCENARIOS}; }

static TeBuildOptions options_of(const TeSource *source) {
    return (TeBuildOptions){.struct_size = sizeof(TeBuildOptions), .abi_version = TE_ABI_VERSION, .config = CONFIG, .source = source};
}

/* ---- ears ---- */

typedef struct {
    TeEngine *engine;
    int steps, epochs, skipped, log_records;
    int answer; /* to the first step */
    int reenter;
    char reasons[SCENARIOS][256]; /* why a scenario was left out */
    atomic_int started;
} Ears;

static void hear_log(void *user, int32_t level, const char *message) {
    Ears *ears = user;
    CHECK(level >= TE_LOG_ERROR && level <= TE_LOG_DEBUG && message != NULL);
    ++ears->log_records;
}

static int32_t hear_event(void *user, const TeEvent *event) {
    Ears *ears = user;
    CHECK(event->struct_size >= sizeof *event && event->text != NULL && event->reason != NULL);
    if (event->kind == TE_EVENT_VALIDATION) CHECK(event->metric_count > 0 && event->metrics[0].name != NULL);
    if (event->kind == TE_EVENT_EPOCH) {
        ++ears->epochs;
        CHECK(event->metric_count > 0 && event->metrics[0].name != NULL);
    }
    if (event->kind == TE_EVENT_SCENARIO_SKIPPED) {
        const char *number = strpbrk(event->text, "0123456789");
        CHECK(strncmp(event->text, "scenario-", 9) == 0 && number != NULL && atoi(number) < SCENARIOS);
        ++ears->skipped;
        snprintf(ears->reasons[atoi(number)], sizeof ears->reasons[0], "%s", event->reason);
    }
    if (event->kind != TE_EVENT_STEP) return 0;
    CHECK(isfinite(event->loss) && event->learning_rate >= 0 && event->total_steps >= event->step);
    CHECK(event->metric_count > 1 && event->metrics[event->metric_count - 1].value == event->loss);
    ++ears->steps;
    atomic_store(&ears->started, 1);
    if (ears->reenter) {
        TePrediction *prediction = NULL;
        TeScenario scenario;
        Arrays *arrays = make_arrays(0, shared_map, &scenario);
        FAILS(te_fit(ears->engine, NULL), TE_BUSY, "in use");
        FAILS(te_predict(ears->engine, &scenario, &prediction), TE_BUSY, "in use");
        FAILS(te_engine_free(ears->engine), TE_BUSY, "in use");
        OK(te_engine_stop(ears->engine));
        free(arrays);
    }
    if (ears->answer < 0) te_callback_error("enough of it");
    return ears->answer;
}

static TeEngine *build(const TeSource *source, Ears *ears, const char *override) {
    TeEngine *engine = NULL;
    TeBuildOptions options = options_of(source);
    options.overrides = &override;
    options.override_count = override == NULL ? 0 : 1;
    if (ears != NULL) {
        options.log = hear_log;
        options.event = hear_event;
        options.log_user_data = options.event_user_data = ears;
    }
    OK(te_build(&options, &engine));
    CHECK(engine != NULL);
    if (ears != NULL) ears->engine = engine;
    return engine;
}

/* ---- what is shown ---- */

static void versions(void) {
    CHECK(te_abi_version() == TE_ABI_VERSION);
    CHECK(strcmp(te_version(), TE_VERSION) == 0);
    CHECK(strstr(te_build_info(), "\"abi_version\":") != NULL);
    CHECK(strstr(te_build_info(), "\"cuda\":[") != NULL);
}

static void resolved_configuration(void) {
    TeBuildOptions options = options_of(NULL);
    const char *overrides[] = {"seed=${epochs}", "epochs=7"};
    const char *text = NULL;
    options.config = "{lr: 2e-3, worker: {threads_per_node: 3}}";
    options.overrides = overrides;
    options.override_count = 2;
    OK(te_config_resolve(&options, &text));
    CHECK(strstr(text, "seed: 7\n") != NULL && strstr(text, "lr: 0.002\n") != NULL);
    options.config = "lightning: {trainer: {params: {fast_dev_run: true}}}"; /* settles others */
    OK(te_config_resolve(&options, &text));
    CHECK(strstr(text, "max_steps: 1\n") != NULL && strstr(text, "enable_checkpointing: false\n") != NULL);
    FAILS(te_config_resolve(&options, NULL), TE_INVALID_ARGUMENT, "text is null");
    FAILS(te_config_resolve(NULL, &text), TE_INVALID_ARGUMENT, "options is null");
    overrides[0] = "seed=${nothing}";
    FAILS(te_config_resolve(&options, &text), TE_INVALID_CONFIG, "key 'seed'");
    options.override_count = 0;
    options.config = "defaults: [other]";
    FAILS(te_config_resolve(&options, &text), TE_INVALID_CONFIG, "no folder of configuration files");
    options.config_folder = "/nowhere";
    FAILS(te_config_resolve(&options, &text), TE_INVALID_CONFIG, "there is no 'other.yaml'");
    options.config_folder = "\xff";
    FAILS(te_config_resolve(&options, &text), TE_INVALID_ARGUMENT, "config_folder is not UTF-8");
}

static void null_arguments(void) {
    TeEngine *engine = NULL;
    TeBuildOptions options = options_of(NULL);
    const char *text = NULL;
    double value = 0;
    TeReportView report_view = {.struct_size = sizeof report_view};
    TePredictionView prediction_view = {.struct_size = sizeof prediction_view};
    FAILS(te_build(NULL, &engine), TE_INVALID_ARGUMENT, "options is null");
    FAILS(te_build(&options, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_fit(NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_cache(NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_validate(NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_test(NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_evaluate(NULL, TE_SPLIT_TEST, NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_predict(NULL, NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_config(NULL, &text), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_summary(NULL, &text), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_save_weights(NULL, "w"), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_load_weights(NULL, "w"), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_save_weights_with(NULL, "w", NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_engine_load_weights_with(NULL, "w", NULL, NULL), TE_INVALID_ARGUMENT, "engine is null");
    FAILS(te_weights_report_view(NULL, NULL), TE_INVALID_ARGUMENT, "the report on weights is null");
    OK(te_weights_report_free(NULL));
    FAILS(te_report_view(NULL, &report_view), TE_INVALID_ARGUMENT, "report is null");
    FAILS(te_report_metric(NULL, "a", &value), TE_INVALID_ARGUMENT, "report is null");
    FAILS(te_prediction_view(NULL, &prediction_view), TE_INVALID_ARGUMENT, "prediction is null");
    FAILS(te_prediction_candidate(NULL, 0, NULL), TE_INVALID_ARGUMENT, "prediction is null");
    FAILS(te_prediction_agent(NULL, 0, NULL), TE_INVALID_ARGUMENT, "prediction is null");
    FAILS(te_map_new(NULL, NULL), TE_INVALID_ARGUMENT, "map is null");
    CHECK(te_engine_stop(NULL) == TE_INVALID_ARGUMENT);
    OK(te_engine_free(NULL));
    OK(te_map_free(NULL));
    OK(te_report_free(NULL));
    OK(te_prediction_free(NULL));
    te_callback_error(NULL);
    CHECK(engine == NULL && text == NULL);
}

static void maps(void) {
    TeMap *map = NULL;
    TeLane lanes[2];
    TePoint points[2] = {{0, 0}, {10, 0}}, crooked[2] = {{0, 0}, {NAN, 0}};
    memset(lanes, 0, sizeof lanes);
    for (int i = 0; i < 2; ++i) {
        lanes[i].struct_size = sizeof(TeLane);
        lanes[i].id = i == 0 ? "a" : "b";
        lanes[i].roadblock_id = "r";
        lanes[i].centerline = lanes[i].left = lanes[i].right = points;
        lanes[i].centerline_count = lanes[i].left_count = lanes[i].right_count = 2;
    }
    const TeMapDescription good = {.struct_size = sizeof good, .name = "m", .lanes = lanes, .lane_count = 2};
    TeMapDescription bad = good;
    FAILS(te_map_new(NULL, &map), TE_INVALID_ARGUMENT, "description is null");
    bad.struct_size = 12;
    FAILS(te_map_new(&bad, &map), TE_INVALID_ARGUMENT, "struct_size is 12");
    bad = good;
    bad.name = NULL;
    FAILS(te_map_new(&bad, &map), TE_INVALID_ARGUMENT, "description.name is null");
    bad = good;
    bad.lanes = NULL;
    FAILS(te_map_new(&bad, &map), TE_INVALID_SCENARIO, "lanes is null but its count is 2");
    bad = good;
    bad.lane_count = SIZE_MAX;
    FAILS(te_map_new(&bad, &map), TE_INVALID_SCENARIO, "lanes: a count of");
    lanes[1].struct_size = 0;
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "lanes[1]: struct_size is 0");
    lanes[1].struct_size = sizeof(TeLane);
    lanes[1].id = "\xc3(";
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "lanes[1].id is not UTF-8");
    lanes[1].id = "";
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "map 'm': lanes[1].id is empty");
    lanes[1].id = "a";
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "'a'");
    lanes[1].id = "b";
    lanes[1].kind = 3;
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "lanes[1].kind is 3");
    lanes[1].kind = TE_LANE_CONNECTOR;
    lanes[1].left = crooked;
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "left[1].x");
    lanes[1].left = points;
    lanes[1].successor_count = 1;
    FAILS(te_map_new(&good, &map), TE_INVALID_SCENARIO, "lanes[1].successors is null");
    lanes[1].successor_count = 0;
    CHECK(map == NULL);

    /* A program of a later version has larger structures: what it added is not looked at. */
    struct { TeMapDescription description; double added[3]; } later = {.description = good};
    struct { TeLane lane; double added; } later_lanes[2];
    memset(later_lanes, 0, sizeof later_lanes);
    for (int i = 0; i < 2; ++i) {
        later_lanes[i].lane = lanes[i];
        later_lanes[i].lane.struct_size = sizeof later_lanes[i];
    }
    later.description.struct_size = sizeof later;
    later.description.lanes = &later_lanes[0].lane;
    OK(te_map_new(&later.description, &map));
    const char *text = NULL;
    OK(te_map_skipped(map, &text));
    CHECK(strcmp(text, "") == 0);
    FAILS(te_fit((TeEngine *)(void *)map, NULL), TE_INVALID_ARGUMENT, "freed, or of another kind");
    OK(te_map_free(map));

    /* A lane without length is left out and named. */
    points[1] = points[0];
    OK(te_map_new(&good, &map));
    OK(te_map_skipped(map, &text));
    CHECK(strstr(text, "a: ") != NULL && strstr(text, "b: ") != NULL);
    OK(te_map_free(map));
    FAILS(te_map_skipped(NULL, &text), TE_INVALID_ARGUMENT, "map is null");
}

static void building(void) {
    TeEngine *engine = NULL;
    Host host = new_host();
    TeSource table = table_of(&host);
    TeBuildOptions options = options_of(&table);

    options.struct_size = 16;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "struct_size is 16");
    options = options_of(&table);
    table.struct_size = 8;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "options.source: struct_size is 8");
    CHECK(host.releases == 0); /* the table could not be read */

    int releases = 0;
    table = table_of(&host);
    options.abi_version = 77;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "77");
    CHECK(host.releases == ++releases);
    options.abi_version = TE_ABI_VERSION;
    FAILS(te_build(&options, NULL), TE_INVALID_ARGUMENT, "engine is null");
    CHECK(host.releases == ++releases);
    table.load = NULL;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "source.load is null");
    CHECK(host.releases == ++releases);
    table.load = host_load;
    host.count = SIZE_MAX;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "source.size returned");
    CHECK(host.releases == ++releases);
    host.count = SCENARIOS;
    options.override_count = 1;
    FAILS(te_build(&options, &engine), TE_INVALID_ARGUMENT, "overrides is null");
    CHECK(host.releases == ++releases);
    options.override_count = 0;
    options.config = "\xff";
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "UTF-8");
    CHECK(host.releases == ++releases);
    options.config = "model: {dimm: 32}";
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "dim");
    CHECK(host.releases == ++releases);
    options.config = "model: [";
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "");
    CHECK(host.releases == ++releases);
    options.config = CONFIG;
    const char *override = "lr=fast";
    options.overrides = &override;
    options.override_count = 1;
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "lr");
    CHECK(host.releases == ++releases);
    CHECK(engine == NULL);

    override = "lr=0.002";
    OK(te_build(&options, &engine));
    const char *text = NULL;
    OK(te_engine_config(engine, &text));
    CHECK(strstr(text, "0.002") != NULL);
    OK(te_engine_summary(engine, &text));
    CHECK(strlen(text) > 0);
    FAILS(te_engine_summary(engine, NULL), TE_INVALID_ARGUMENT, "text is null");
    CHECK(host.releases == releases);
    OK(te_engine_free(engine));
    CHECK(host.releases == releases + 1 && host.loads == host.unloads);
}

/* Every lie of a callback, told to te_predict. */
static void lies(TeEngine *engine) {
    static const struct { Fault fault; const char *text; } table[] = {
        {NULL_TOKEN, "token is null"}, {TOKEN_NOT_UTF8, "token is not UTF-8"}, {NULL_MAP, "map is null"}, {NULL_EGO, "ego is null"},
        {EGO_COUNT, "ego_count is 22"}, {NULL_AGENTS, "agents is null"}, {AGENT_COUNT, "agents: a count of"},
        {AGENT_SIZE, "agents[1]: struct_size is 8"}, {AGENT_KIND, "agents[1].kind is 77"}, {AGENT_STATES, "agents[2].state_count is 5"},
        {AGENT_NAN, "states[7].vy is not finite"}, {EGO_INFINITE, "ego[20].x is not finite"}, {NULL_ROUTE, "route[0] is null"},
        {LIGHT_STATE, "lights[0].state is -1"}, {STATIC_COUNT, "static_objects is null but its count is 4"},
        {VEHICLE_WIDTH, "vehicle.width"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; ++i) {
        TePrediction *prediction = NULL;
        TeScenario scenario;
        Arrays *arrays = make_arrays(0, shared_map, &scenario);
        spoil(table[i].fault, arrays, &scenario);
        FAILS(te_predict(engine, &scenario, &prediction), TE_INVALID_SCENARIO, table[i].text);
        CHECK(prediction == NULL);
        free(arrays);
    }
    TePrediction *prediction = NULL;
    TeScenario scenario = {0};
    FAILS(te_predict(engine, NULL, &prediction), TE_INVALID_ARGUMENT, "scenario is null");
    FAILS(te_predict(engine, &scenario, &prediction), TE_INVALID_ARGUMENT, "struct_size is 0");
    FAILS(te_predict(engine, &scenario, NULL), TE_INVALID_ARGUMENT, "prediction is null");
}

static void predicting(TeEngine *engine) {
    TePrediction *prediction = NULL;
    TeScenario scenario;
    Arrays *arrays = make_arrays(0, shared_map, &scenario);
    scenario.ego_count = TE_HISTORY_STEPS; /* the past alone */
    for (int a = 0; a < AGENTS; ++a) arrays->agents[a].state_count = TE_HISTORY_STEPS;
    OK(te_predict(engine, &scenario, &prediction));
    free(arrays);

    TePredictionView view = {.struct_size = sizeof view};
    TeCandidate candidate = {.struct_size = sizeof candidate};
    TeAgentPrediction agent = {.struct_size = sizeof agent};
    double sum = 0, best = 0;
    OK(te_prediction_view(prediction, &view));
    CHECK(view.candidate_count > 0 && view.best < view.candidate_count && view.agent_count == AGENTS);
    for (size_t i = 0; i < view.candidate_count; ++i) {
        OK(te_prediction_candidate(prediction, i, &candidate));
        CHECK(candidate.state_count == TE_FUTURE_STEPS && isfinite(candidate.states[TE_FUTURE_STEPS - 1].x));
        sum += candidate.probability;
        if (candidate.probability > best) best = candidate.probability;
    }
    CHECK(fabs(sum - 1) < 1e-4);
    OK(te_prediction_candidate(prediction, view.best, &candidate));
    CHECK(candidate.probability == best);
    OK(te_prediction_agent(prediction, 0, &agent));
    CHECK(strcmp(agent.id, "first") == 0 && agent.state_count == TE_FUTURE_STEPS && isfinite(agent.states[0].heading));
    FAILS(te_prediction_candidate(prediction, view.candidate_count, &candidate), TE_INVALID_ARGUMENT, "candidate");
    FAILS(te_prediction_agent(prediction, AGENTS, &agent), TE_INVALID_ARGUMENT, "agent 3 of 3");
    agent.struct_size = 1;
    FAILS(te_prediction_agent(prediction, 0, &agent), TE_INVALID_ARGUMENT, "struct_size is 1");
    OK(te_prediction_free(prediction));
}

static void training(void) {
    Host host = new_host();
    host.map_of_its_own = 1;
    TeSource table = table_of(&host);
    Ears ears = {0};
    TeEngine *engine = build(&table, &ears, NULL);
    TeReport *report = NULL;
    TeReportView view = {.struct_size = sizeof view};
    double value = 0;
    OK(te_fit(engine, &report));
    OK(te_report_view(report, &view));
    CHECK(view.epochs == 1 && view.steps == SCENARIOS / 4 && view.skipped_steps == 0 && view.skipped_scenarios == 0 && !view.stopped);
    CHECK(ears.steps == SCENARIOS / 4 && ears.epochs == 1);
    CHECK(view.metric_count > 0 && view.json[0] == '{');
    OK(te_report_metric(report, "val/minFDE", &value));
    CHECK(isfinite(value));
    FAILS(te_report_metric(report, "val/minFDEE", &value), TE_INVALID_ARGUMENT, "val/minFDE");
    FAILS(te_report_metric(report, "val/minFDE", NULL), TE_INVALID_ARGUMENT, "value is null");
    FAILS(te_report_view(report, NULL), TE_INVALID_ARGUMENT, "view is null");
    OK(te_report_free(report));

    view.struct_size = sizeof view;
    OK(te_validate(engine, &report));
    OK(te_report_view(report, &view));
    CHECK(view.scenarios == SCENARIOS / 4);
    OK(te_report_free(report));
    OK(te_test(engine, &report));
    OK(te_report_view(report, &view));
    CHECK(view.scenarios == SCENARIOS / 4);
    OK(te_report_metric(report, "test/minFDE", &value));
    OK(te_report_free(report));
    OK(te_evaluate(engine, TE_SPLIT_TRAIN, "last", &report));
    OK(te_report_view(report, &view));
    CHECK(view.scenarios == SCENARIOS / 2);
    OK(te_report_metric(report, "train/minFDE", &value));
    OK(te_report_free(report));
    FAILS(te_evaluate(engine, 7, NULL, NULL), TE_INVALID_ARGUMENT, "split 7 is none of");
    FAILS(te_evaluate(engine, TE_SPLIT_TEST, "no such file", NULL), TE_FILE_ERROR, "no such file");
    CHECK(host.loads > 0 && host.loads == host.unloads && host.releases == 0);
    OK(te_engine_free(engine));
    CHECK(host.releases == 1);
}

/* Weights of both formats, with prefixes, whole and in part. */
static void weights(TeEngine *engine, const char *folder) {
    char path[4096 + 16];
    TeSaveWeightsOptions save = {.struct_size = sizeof save, .prefix = "mine."};
    TeLoadWeightsOptions load = {.struct_size = sizeof load, .strip_prefix = "mine."};
    TeWeightsReport *report = NULL;
    TeWeightsReportView view = {.struct_size = sizeof view};
    snprintf(path, sizeof path, "%s/weights.ckpt", folder);
    OK(te_engine_save_weights(engine, path));
    OK(te_engine_load_weights(engine, path));
    OK(te_engine_save_weights_with(engine, path, &save));
    OK(te_engine_load_weights_with(engine, path, &load, &report));
    OK(te_weights_report_view(report, &view));
    CHECK(view.missing_count == 0 && view.extra_count == 0);
    OK(te_weights_report_free(report));
    FAILS(te_engine_load_weights(engine, path), TE_FILE_ERROR, "tensor 'mine.");
    load.add_prefix = "other.";
    load.partial = 1;
    FAILS(te_engine_load_weights_with(engine, path, &load, &report), TE_FILE_ERROR, "no tensor of this model");
    /* Of the map encoder alone, under its own names. */
    load.strip_prefix = "mine.map_encoder.";
    load.add_prefix = "map_encoder.";
    OK(te_engine_load_weights_with(engine, path, &load, &report));
    OK(te_weights_report_view(report, &view));
    CHECK(view.missing_count > 0 && view.extra_count > 0 && strncmp(view.extra[0], "mine.", 5) == 0);
    for (size_t i = 0; i < view.missing_count; ++i) CHECK(strncmp(view.missing[i], "map_encoder.", 12) != 0);
    view.struct_size = 8;
    FAILS(te_weights_report_view(report, &view), TE_INVALID_ARGUMENT, "struct_size");
    OK(te_weights_report_free(report));
    load.struct_size = 8;
    FAILS(te_engine_load_weights_with(engine, path, &load, NULL), TE_INVALID_ARGUMENT, "options: struct_size is 8");
    save.struct_size = 0;
    FAILS(te_engine_save_weights_with(engine, path, &save), TE_INVALID_ARGUMENT, "options: struct_size is 0");
    save = (TeSaveWeightsOptions){.struct_size = sizeof save, .optimizer = 1};
    OK(te_engine_save_weights_with(engine, path, &save));
    OK(te_engine_load_weights(engine, path));
    remove(path);
    snprintf(path, sizeof path, "%s/weights.st", folder);
    FAILS(te_engine_save_weights_with(engine, path, &save), TE_INVALID_ARGUMENT, "'.ckpt' alone");
}

/* An engine without data predicts; its weights go to a file and back. */
static void planning(const char *folder) {
    char path[4096], missing[4096], blocked[4096 + 16];
    snprintf(path, sizeof path, "%s/weights.safetensors", folder);
    snprintf(missing, sizeof missing, "%s/no/such/file", folder);
    snprintf(blocked, sizeof blocked, "%s/below", path);
    TeEngine *engine = build(NULL, NULL, NULL);
    lies(engine);
    predicting(engine);
    OK(te_engine_save_weights(engine, path));
    OK(te_engine_load_weights(engine, path));
    FAILS(te_engine_load_weights(engine, missing), TE_FILE_ERROR, missing);
    FAILS(te_engine_save_weights(engine, blocked), TE_FILE_ERROR, path); /* a file stands where a folder would have to */
    FAILS(te_engine_save_weights(engine, NULL), TE_INVALID_ARGUMENT, "path is null");
    FAILS(te_engine_save_weights(engine, ""), TE_INVALID_ARGUMENT, "path is empty");
    weights(engine, folder);
    CHECK(te_fit(engine, NULL) != TE_OK); /* no data */
    OK(te_engine_free(engine));
    remove(path);
}

/* Features are cached once, found again, and serve an engine that has no source. */
static void caching(void) {
    const char *overrides[] = {"cache.cache_path=features", "cache.use_cache_without_dataset=true"};
    Host host = new_host();
    host.faults[1] = AGENT_NAN;
    TeSource table = table_of(&host);
    Ears ears = {0};
    TeEngine *engine = build(&table, NULL, NULL);
    TeReport *report = NULL;
    TeReportView view = {.struct_size = sizeof view};
    FAILS(te_cache(engine, NULL), TE_INVALID_CONFIG, "cache.cache_path");
    OK(te_engine_free(engine));

    for (size_t round = 0; round < 2; ++round) {
        host = new_host();
        host.faults[1] = AGENT_NAN;
        engine = build(&table, &ears, overrides[0]);
        OK(te_cache(engine, &report));
        OK(te_report_view(report, &view));
        CHECK(view.scenarios == SCENARIOS && view.failed == 1 && view.damaged == 0 && !view.stopped);
        CHECK(round == 0 ? view.computed == SCENARIOS - 1 && view.present == 0 : view.computed == 0 && view.present == SCENARIOS - 1);
        CHECK(strstr(view.json, "\"not_finite\":1") != NULL && strstr(ears.reasons[1], "states[7].vy is not finite") != NULL);
        CHECK(host.loads == host.unloads && (round == 0 || host.loads == 0)); /* a rejection is remembered, too */
        OK(te_report_free(report));
        OK(te_engine_free(engine));
    }

    TeBuildOptions options = options_of(NULL);
    options.overrides = overrides;
    options.override_count = 2;
    OK(te_build(&options, &engine));
    OK(te_fit(engine, &report));
    OK(te_report_view(report, &view));
    CHECK(view.steps >= 1 && view.skipped_scenarios == 1);
    OK(te_report_free(report));
    OK(te_engine_free(engine));
    options.overrides = overrides + 1;
    options.override_count = 1;
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "cache.cache_path");
    const char *bucket[] = {"cache.cache_path=s3://bucket/prefix", overrides[1]};
    options.overrides = bucket;
    options.override_count = 2;
    FAILS(te_build(&options, &engine), TE_INVALID_CONFIG, "s3");
}

/* Scenarios that cannot be used are left out, counted and named; the run goes on with the others. */
static void left_out(void) {
    static const struct { size_t index; Fault fault; const char *reason; } table[] = {
        {0, SKIP, "no lane was recorded"}, {1, AGENT_NAN, "states[7].vy is not finite"}, {4, SIZE_ZERO, "struct_size is 0"},
        {5, SIZE_RAISED, "the callback made it"}, {8, AGENT_COUNT, "agents: a count of"}, {9, INFO_SPLIT, "split is 9"}};
    enum { COUNT = sizeof table / sizeof *table };
    Host host = new_host();
    for (size_t i = 0; i < COUNT; ++i) host.faults[table[i].index] = table[i].fault;
    TeSource table_of_host = table_of(&host);
    Ears ears = {0};
    TeEngine *engine = build(&table_of_host, &ears, NULL);
    TeReport *report = NULL;
    TeReportView view = {.struct_size = sizeof view};
    OK(te_fit(engine, &report));
    OK(te_report_view(report, &view));
    CHECK(view.skipped_scenarios == COUNT && ears.skipped == COUNT && view.steps >= 1);
    for (size_t i = 0; i < COUNT; ++i) CHECK(strstr(ears.reasons[table[i].index], table[i].reason) != NULL);
    CHECK(ears.log_records >= COUNT);
    OK(te_report_free(report));
    OK(te_engine_free(engine));
    CHECK(host.releases == 1 && host.loads == host.unloads);
}

/* A callback that reports a failure ends the call; the story is the host's. */
static void host_fails(Fault fault, const char *story) {
    Host host = new_host();
    host.faults[5] = fault;
    TeSource table = table_of(&host);
    TeBuildOptions options = options_of(&table);
    TeEngine *engine = NULL;
    TeStatus status = te_build(&options, &engine); /* which may already ask for what is known of the scenarios */
    if (status == TE_OK) status = te_fit(engine, NULL);
    FAILS(status, TE_HOST_ERROR, story);
    OK(te_engine_free(engine));
    CHECK(host.releases == 1 && host.loads == host.unloads);
}

static void event_callback(void) {
    for (int answer = -1; answer <= 1; answer += 2) {
        Host host = new_host();
        TeSource table = table_of(&host);
        Ears ears = {.answer = answer};
        TeEngine *engine = build(&table, &ears, "epochs=1000");
        TeReport *report = NULL;
        TeReportView view = {.struct_size = sizeof view};
        if (answer < 0) {
            FAILS(te_fit(engine, &report), TE_HOST_ERROR, "enough of it");
            CHECK(report == NULL);
        } else {
            OK(te_fit(engine, &report));
            OK(te_report_view(report, &view));
            CHECK(view.stopped && view.steps == 1 && ears.steps == 1);
            OK(te_report_free(report));
        }
        OK(te_engine_free(engine));
    }
    Host host = new_host();
    TeSource table = table_of(&host);
    Ears ears = {.reenter = 1};
    TeEngine *engine = build(&table, &ears, "epochs=1000");
    OK(te_fit(engine, NULL));
    CHECK(ears.steps == 1);
    OK(te_engine_free(engine));
}

static void *stop_later(void *user) {
    Ears *ears = user;
    const struct timespec moment = {0, 1000000};
    while (!atomic_load(&ears->started)) nanosleep(&moment, NULL);
    const char *text = NULL;
    FAILS(te_fit(ears->engine, NULL), TE_BUSY, "in use"); /* a second call does not wait */
    FAILS(te_engine_free(ears->engine), TE_BUSY, "in use");
    OK(te_engine_config(ears->engine, &text));
    OK(te_engine_stop(ears->engine));
    return NULL;
}

static void stop_from_another_thread(void) {
    Host host = new_host();
    TeSource table = table_of(&host);
    Ears ears = {0};
    TeEngine *engine = build(&table, &ears, "epochs=100000");
    TeReport *report = NULL;
    TeReportView view = {.struct_size = sizeof view};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, stop_later, &ears) == 0);
    OK(te_fit(engine, &report));
    CHECK(pthread_join(thread, NULL) == 0);
    OK(te_report_view(report, &view));
    CHECK(view.stopped && view.steps >= 1);
    OK(te_report_free(report));
    OK(te_engine_free(engine));
    CHECK(host.releases == 1);
}

/* A fault of the library stays inside, and nothing is printed. */
static void panics(const char *folder) {
    char path[4096];
    Host host = new_host();
    TeSource table = table_of(&host);
    TeEngine *engine = build(&table, NULL, NULL);
    snprintf(path, sizeof path, "%s/stderr", folder);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    FILE *file = fopen(path, "w+");
    CHECK(kept >= 0 && file != NULL && dup2(fileno(file), STDERR_FILENO) >= 0);
    const TeStatus bare = te_self_test(NULL, TE_SELF_TEST_PANIC), held = te_self_test(engine, TE_SELF_TEST_PANIC);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    CHECK(fseek(file, 0, SEEK_END) == 0 && ftell(file) == 0);
    fclose(file);
    remove(path);
    CHECK(bare == TE_PANIC);
    FAILS(held, TE_PANIC, "provoked by te_self_test");
    FAILS(te_fit(engine, NULL), TE_POISONED, "can only be freed");
    FAILS(te_engine_save_weights(engine, path), TE_POISONED, "can only be freed");
    OK(te_engine_stop(engine));
    OK(te_engine_free(engine));
    CHECK(host.releases == 1);
    FAILS(te_self_test(NULL, 99), TE_INVALID_ARGUMENT, "99");
}

/* An engine does not survive a fork, and says so. */
static void forks(void) {
    Host host = new_host();
    TeSource table = table_of(&host);
    TeEngine *engine = build(&table, NULL, NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const int good = te_fit(engine, NULL) == TE_FORKED && te_engine_free(engine) == TE_OK && host.releases == 0;
        /* A leak checker would count what the engine's threads held, which the fork did not copy: answer through another program. */
        execlp(good ? "true" : "false", "answer", (char *)NULL);
        _exit(2);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(te_engine_free(engine));
    CHECK(host.releases == 1);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place) {
    (void)status, (void)kind, (void)place;
    return remove(path);
}

int main(void) {
    char folder[] = "/tmp/c_api.XXXXXX";
    CHECK(mkdtemp(folder) != NULL && chdir(folder) == 0);
    versions();
    resolved_configuration();
    null_arguments();
    maps();
    make_map(&shared_map);
    building();
    planning(folder);
    training();
    caching();
    left_out();
    host_fails(FAIL, "the disk is gone");
    host_fails(FAIL_WITHOUT_WORDS, "-42");
    host_fails(INFO_FAIL, "the index is lost");
    event_callback();
    stop_from_another_thread();
    panics(folder);
    forks();
    OK(te_map_free(shared_map));
    CHECK(chdir("/") == 0 && nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS) == 0);
    printf("c_api: %d checks passed\n", checks);
    return 0;
}
