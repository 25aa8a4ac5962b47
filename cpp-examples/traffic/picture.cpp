#include "picture.hpp"

#include "canvas.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace traffic {
namespace {

constexpr double map_pixels = 960.0, panel_pixels = 330.0;
constexpr std::size_t present = history_steps - 1;

// One place for all colours.
namespace ink {
const char* const ground = "#e8ece4";
const char* const pavement = "#d6d3ca";
const char* const asphalt = "#9aa1ab";
const char* const bay = "#8b929c";
const char* const marking = "#f7f7f4";
const char* const route = "#7fb2ff";
const char* const ego = "#e8432d";
const char* const truth = "#0a8a4a";
const char* const plan = "#6a1bd1";
const char* const still = "#1f2937";
const char* const car = "#2f5d9b";
const char* const lorry = "#1e3a66";
const char* const parked = "#c3c8cf";
const char* const pedestrian = "#f08c00";
const char* const bicycle = "#0d9488";
const char* const text = "#1f2933";
const char* const faint = "#6b7684";
}  // namespace ink

std::string stroke(const std::string& color, double width, const std::string& more = "") {
    return "stroke=\"" + color + "\" stroke-width=\"" + number(width) + "\" stroke-linejoin=\"round\" " + more;
}

std::string fill(const std::string& color, const std::string& more = "") { return "fill=\"" + color + "\" " + more; }

const char* light_color(Light light) {
    return light == Light::green ? "#18a957" : light == Light::yellow ? "#f5b400" : light == Light::red ? "#d92b2b" : "#f7f7f4";
}

const char* kind_color(const ScenarioAgent& agent) {
    return agent.parked ? ink::parked
           : agent.kind == Kind::pedestrian ? ink::pedestrian
           : agent.kind == Kind::bicycle    ? ink::bicycle
           : agent.kind == Kind::lorry      ? ink::lorry
                                            : ink::car;
}

std::vector<Point> lane_outline(const Lane& lane) {
    std::vector<Point> outline = lane.left;
    outline.insert(outline.end(), lane.right.rbegin(), lane.right.rend());
    return outline;
}

// The junction's surface, with rounded corners between neighbouring arms.
std::string junction_surface(const Canvas& canvas, const Junction& junction) {
    std::string data;
    const auto put = [&](const char* command, Point p) {
        const Point q = canvas.to_pixels(p);
        data += command + number(q.x) + " " + number(q.y) + " ";
    };
    for (int a = 0; a < 4; ++a) {
        const auto& arm = junction.arms[static_cast<Index>(a)];
        const auto& next = junction.arms[static_cast<Index>((a + 1) % 4)];
        const Point out = junction.direction(a), side = left_of(out);
        const double reach = arm.exists() ? arm.stop_line : next.half_width;
        if (a == 0) {
            put("M", junction.center + reach * out - arm.half_width * side);
        }
        put("L", junction.center + reach * out - arm.half_width * side);
        put("L", junction.center + reach * out + arm.half_width * side);
        const Point corner = junction.center + next.half_width * out + arm.half_width * side;
        const double next_reach = next.exists() ? next.stop_line : arm.half_width;
        put("Q", corner);
        put("", junction.center + next_reach * side + next.half_width * out);
    }
    return data + "Z";
}

void draw_roads(Canvas& canvas, const TownScenario& scenario) {
    const Town& town = *scenario.town;
    const double k = canvas.scale();
    // Pavements first, as a broad rim around everything that is asphalt.
    for (const bool rim : {true, false}) {
        const std::string road_style = rim ? fill(ink::pavement, stroke(ink::pavement, 7.0 * k)) : fill(ink::asphalt, stroke(ink::asphalt, 1.0));
        for (const Road& road : town.roads) {
            std::vector<Point> outline = town.lanes[road.lanes.front()].left;
            outline.insert(outline.end(), road.kerb.points().rbegin(), road.kerb.points().rend());
            canvas.polygon(outline, rim || !road.parking ? road_style : fill(ink::bay, stroke(ink::bay, 1.0)));
            if (!rim && road.parking) {
                for (const Index lane : road.lanes) {
                    canvas.polygon(lane_outline(town.lanes[lane]), road_style);
                }
            }
        }
        for (const Junction& junction : town.junctions) {
            canvas.raw("<path d=\"" + junction_surface(canvas, junction) + "\" " + road_style + "/>");
        }
    }
    for (const Lane& lane : town.lanes) {
        if (std::find(scenario.route.begin(), scenario.route.end(), lane.roadblock) != scenario.route.end()) {
            canvas.polygon(lane_outline(lane), fill(ink::route, "fill-opacity=\"0.38\""));
        }
    }
    for (const Lane& lane : town.lanes) {
        if (lane.connector) {
            continue;
        }
        const std::string dashes = "stroke-dasharray=\"" + number(3.0 * k) + " " + number(4.5 * k) + "\"";
        canvas.line(lane.left, stroke(ink::marking, 0.17 * k, lane.left_neighbor == none ? "" : dashes));
        if (lane.right_neighbor == none) {
            canvas.line(lane.right, stroke(ink::marking, 0.12 * k, "stroke-opacity=\"0.7\""));
        }
    }
    for (const Crosswalk& walk : town.crosswalks) {
        const Point a = 0.5 * (walk.polygon[0] + walk.polygon[3]), b = 0.5 * (walk.polygon[1] + walk.polygon[2]);
        canvas.line({a, b}, stroke(ink::marking, walk.width * k, "stroke-dasharray=\"" + number(0.55 * k, 2) + " " + number(0.55 * k, 2) + "\""));
    }
}

// A bar across each lane that ends at a junction, in the colour of its light.
void draw_stop_lines(Canvas& canvas, const TownScenario& scenario) {
    const Town& town = *scenario.town;
    for (Index i = 0; i < town.lanes.size(); ++i) {
        const Lane& lane = town.lanes[i];
        if (lane.connector || lane.junction == none) {
            continue;
        }
        Light light = Light::off;
        for (const auto& [connector, color] : scenario.lights) {
            if (town.lanes[connector].source == i) {
                light = color;
            }
        }
        const Point back = -0.5 * lane.center.direction(lane.center.length());
        canvas.line({lane.left.back() + back, lane.right.back() + back},
                    stroke(light_color(light), (light == Light::off ? 0.4 : 0.9) * canvas.scale()));
    }
}

void draw_static_objects(Canvas& canvas, const TownScenario& scenario) {
    for (const StaticObject& object : scenario.static_objects) {
        if (object.kind == StaticKind::cone) {
            canvas.circle(object.box.center, 0.35 * canvas.scale(), fill("#ff7a00", stroke("#ffffff", 1.0)));
        } else {
            canvas.box(object.box, 0.05, fill(object.kind == StaticKind::barrier ? "#c81e1e" : "#ffd400", stroke("#ffffff", 1.0)));
        }
    }
}

template <class States>
std::vector<Point> future_of(const States& states) {
    std::vector<Point> points;
    for (std::size_t t = present; t < states.size(); ++t) {
        points.push_back({states[t].x, states[t].y});
    }
    return points;
}

std::vector<Point> valid_future(const ScenarioAgent& agent) {
    std::vector<Point> points;
    for (std::size_t t = present; t < agent.states.size() && agent.states[t].valid; ++t) {
        points.push_back({agent.states[t].x, agent.states[t].y});
    }
    return points;
}

void draw_agents(Canvas& canvas, const Picture& picture) {
    const double k = canvas.scale();
    for (const ScenarioAgent& agent : picture.scenario.agents) {
        const auto future = valid_future(agent);
        if (!agent.parked && distance(future.front(), future.back()) > 0.5) {
            canvas.line(future, stroke(kind_color(agent), 0.45 * k, "stroke-opacity=\"0.75\" stroke-linecap=\"round\""));
        }
    }
    for (const PredictedPath& path : picture.agents) {
        if (distance(path.points.front(), path.points.back()) > 1.5) {
            canvas.line(path.points, stroke("#ffffff", 0.28 * k, "stroke-dasharray=\"4 3\" stroke-opacity=\"0.95\""));
        }
    }
    for (const ScenarioAgent& agent : picture.scenario.agents) {
        const AgentState& now = agent.states[present];
        const std::string style = fill(kind_color(agent), stroke("#ffffff", 1.2));
        if (agent.kind == Kind::pedestrian) {
            canvas.circle({now.x, now.y}, std::max(3.5, 0.4 * k), style);
            continue;
        }
        const Box box{{now.x, now.y}, now.heading, agent.length, agent.width};
        canvas.box(box, 0.45, style);
        if (!agent.parked && agent.kind != Kind::bicycle) {  // windscreen, to show the front
            const Point shift = (0.18 * agent.length) * unit(now.heading);
            canvas.box({box.center + shift, now.heading, 0.13 * agent.length, 0.78 * agent.width}, 0.15, fill("#dbe7f5", "fill-opacity=\"0.9\""));
        }
    }
}

// A path with a dot every two seconds.
void draw_timed_path(Canvas& canvas, const std::vector<Point>& points, const char* color, double width) {
    canvas.line(points, stroke("#ffffff", width + 2.5, "stroke-linecap=\"round\" stroke-opacity=\"0.85\""));
    canvas.line(points, stroke(color, width, "stroke-linecap=\"round\""));
    for (std::size_t t = 20; t < points.size() + 1; t += 20) {
        canvas.circle(points[std::min(t, points.size() - 1)], width * 0.85, fill("#ffffff", stroke(color, width * 0.45)));
    }
}

void draw_ego(Canvas& canvas, const Picture& picture) {
    const auto& ego = picture.scenario.ego;
    const double k = canvas.scale();
    const EgoState& now = ego[present];
    std::vector<Point> past;
    for (std::size_t t = 0; t <= present; ++t) {
        past.push_back({ego[t].x, ego[t].y});
    }
    canvas.line(past, stroke(ink::ego, 0.5 * k, "stroke-opacity=\"0.55\" stroke-linecap=\"round\" stroke-dasharray=\"1 6\""));
    const Point here{now.x, now.y};
    const Point after = here + (static_cast<double>(future_steps) * time_step) * Point{now.vx, now.vy};
    canvas.line({here, after}, stroke(ink::still, 0.22 * k, "stroke-dasharray=\"7 5\" stroke-opacity=\"0.7\""));
    canvas.circle(after, 0.4 * k, fill("none", stroke(ink::still, 0.2 * k)));

    double largest = 1e-9;
    for (const PlannedPath& path : picture.candidates) {
        largest = std::max(largest, path.probability);
    }
    for (const PlannedPath& path : picture.candidates) {
        const double opacity = 0.08 + 0.55 * std::sqrt(path.probability / largest);
        std::vector<Point> points{here};
        points.insert(points.end(), path.points.begin(), path.points.end());
        canvas.line(points, stroke(ink::plan, 0.3 * k, "stroke-linecap=\"round\" stroke-opacity=\"" + number(opacity, 2) + "\""));
    }
    draw_timed_path(canvas, future_of(ego), ink::truth, 0.75 * k);
    if (!picture.candidates.empty()) {
        std::vector<Point> points{here};
        const auto& best = picture.candidates[picture.best].points;
        points.insert(points.end(), best.begin(), best.end());
        draw_timed_path(canvas, points, ink::plan, 0.55 * k);
    }
    const Point center = here + 1.461 * unit(now.heading);
    canvas.box({center, now.heading, 5.176, 2.297}, 0.5, fill(ink::ego, stroke("#ffffff", 2.0)));
    canvas.box({center + 0.95 * unit(now.heading), now.heading, 0.7, 1.8}, 0.15, fill("#ffe9e4"));
}

class Panel {
public:
    explicit Panel(Canvas& canvas) : canvas_(canvas) {}
    void text(double x, const std::string& words, double size, const char* color, const char* weight, const char* anchor = "start") {
        canvas_.raw("<text x=\"" + number(map_pixels + x) + "\" y=\"" + number(y_) + "\" font-size=\"" + number(size) + "\" fill=\"" +
                    color + "\" font-weight=\"" + weight + "\" text-anchor=\"" + anchor + "\">" + escaped(words) + "</text>");
    }
    void heading(const std::string& words) {
        y_ += 40.0;
        text(26.0, words, 13.0, ink::faint, "700");
    }
    void row(const std::string& name, const std::string& value) {
        y_ += 24.0;
        text(26.0, name, 14.5, ink::text, "400");
        text(panel_pixels - 26.0, value, 14.5, ink::text, "700", "end");
    }
    // `sample` is drawn in a box of 44 x 16 pixels whose middle is the origin.
    void key(const std::string& sample, const std::string& words) {
        y_ += 24.5;
        canvas_.raw("<g transform=\"translate(" + number(map_pixels + 48.0) + " " + number(y_ - 5.0) + ")\">" + sample + "</g>");
        text(86.0, words, 14.0, ink::text, "400");
    }
    void skip(double pixels) { y_ += pixels; }

private:
    Canvas& canvas_;
    double y_ = 0.0;
};

std::string line_sample(const char* color, double width, const std::string& more = "") {
    return "<path d=\"M-20 0L20 0\" " + stroke(color, width, more) + "/>";
}

std::string box_sample(const char* color) {
    return "<rect x=\"-15\" y=\"-7\" width=\"30\" height=\"14\" rx=\"4\" " + fill(color, stroke("#ffffff", 1.2)) + "/>";
}

std::string dot_sample(const char* color, double x = 0.0) {
    return "<circle cx=\"" + number(x) + "\" r=\"6\" " + fill(color, stroke("#ffffff", 1.2)) + "/>";
}

void draw_panel(Canvas& canvas, const Picture& picture) {
    canvas.raw("<rect x=\"" + number(map_pixels) + "\" y=\"0\" width=\"" + number(panel_pixels) + "\" height=\"" + number(map_pixels) +
               "\" fill=\"#fbfbf9\"/>");
    Panel panel(canvas);
    panel.skip(48.0);
    std::string title = picture.scenario.type;
    std::replace(title.begin(), title.end(), '_', ' ');
    title[0] = static_cast<char>(title[0] - 'a' + 'A');
    panel.text(26.0, title, 25.0, ink::text, "700");
    panel.skip(22.0);
    panel.text(26.0, picture.scenario.log_name + ", scenario " + picture.scenario.token.substr(0, 8), 13.0, ink::faint, "400");
    if (!picture.facts.empty()) {
        panel.heading("THIS SCENARIO");
        for (const auto& [name, value] : picture.facts) {
            panel.row(name, value);
        }
    }
    panel.heading("EGO");
    panel.key(box_sample(ink::ego), "ego now, with its last 2 s");
    panel.key(line_sample(ink::truth, 6.0) + "<circle r=\"5\" " + fill("#ffffff", stroke(ink::truth, 2.5)) + "/>", "what it did, dot every 2 s");
    if (!picture.candidates.empty()) {
        panel.key(line_sample(ink::plan, 5.0) + "<circle r=\"4.5\" " + fill("#ffffff", stroke(ink::plan, 2.2)) + "/>", "best planned trajectory");
        panel.key(line_sample(ink::plan, 2.5, "stroke-opacity=\"0.35\""), "candidates, by probability");
    }
    panel.key(line_sample(ink::still, 2.0, "stroke-dasharray=\"7 5\""), "constant velocity");
    panel.key("<rect x=\"-20\" y=\"-7\" width=\"40\" height=\"14\" " + fill(ink::asphalt) + "/><rect x=\"-20\" y=\"-7\" width=\"40\" height=\"14\" " +
                  fill(ink::route, "fill-opacity=\"0.38\"") + "/>", "route");
    panel.heading("OTHERS");
    panel.key(box_sample(ink::car), "car, with its next 8 s");
    panel.key(box_sample(ink::lorry), "lorry");
    panel.key(box_sample(ink::parked), "parked");
    panel.key("<rect x=\"-9\" y=\"-4\" width=\"18\" height=\"8\" rx=\"3\" " + fill(ink::bicycle, stroke("#ffffff", 1.2)) + "/>", "bicycle");
    panel.key(dot_sample(ink::pedestrian), "pedestrian");
    if (!picture.agents.empty()) {
        panel.key("<rect x=\"-20\" y=\"-6\" width=\"40\" height=\"12\" " + fill(ink::asphalt) + "/>" +
                      line_sample("#ffffff", 2.2, "stroke-dasharray=\"4 3\""), "predicted future");
    }
    panel.key(dot_sample("#ff7a00", -10.0) + "<rect x=\"4\" y=\"-4\" width=\"14\" height=\"8\" " + fill("#c81e1e", stroke("#ffffff", 1.0)) + "/>", "cone, barrier");
    panel.key("<path d=\"M-20 0L-8 0\" " + stroke(light_color(Light::green), 6.0) + "/><path d=\"M-6 0L6 0\" " + stroke(light_color(Light::yellow), 6.0) +
                  "/><path d=\"M8 0L20 0\" " + stroke(light_color(Light::red), 6.0) + "/>", "light at the stop line");
}

void draw_scale_bar(Canvas& canvas) {
    const double length = 20.0 * canvas.scale(), x = 28.0, y = map_pixels - 30.0;
    canvas.raw("<rect x=\"" + number(x - 12.0) + "\" y=\"" + number(y - 28.0) + "\" width=\"" + number(length + 24.0) +
               "\" height=\"44\" rx=\"8\" fill=\"#fbfbf9\" fill-opacity=\"0.88\"/>");
    canvas.raw("<path d=\"M" + number(x) + " " + number(y - 5.0) + "v10h" + number(length) + "v-10\" fill=\"none\" stroke=\"" + ink::text +
               "\" stroke-width=\"2\"/><text x=\"" + number(x + length / 2.0) + "\" y=\"" + number(y - 8.0) +
               "\" font-size=\"13\" text-anchor=\"middle\" fill=\"" + ink::text + "\">20 m</text>");
}

}  // namespace

void write_picture(const Picture& picture, const std::string& path) {
    // The view holds the ego's future and all likely plans, with some of the surroundings.
    const EgoState& now = picture.scenario.ego[present];
    const Point ahead = unit(now.heading), side = left_of(ahead), here{now.x, now.y};
    double low[2] = {-8.0, -8.0}, high[2] = {8.0, 8.0};
    for (const Point p : future_of(picture.scenario.ego)) {
        const double at[2] = {dot(p - here, ahead), dot(p - here, side)};
        for (int i = 0; i < 2; ++i) {
            low[i] = std::min(low[i], at[i]);
            high[i] = std::max(high[i], at[i]);
        }
    }
    const double metres = std::max(78.0, std::max(high[0] - low[0], high[1] - low[1]) + 34.0);
    const Point center = here + (0.5 * (low[0] + high[0])) * ahead + (0.5 * (low[1] + high[1])) * side;
    Canvas canvas(center, now.heading, metres, map_pixels);
    canvas.raw("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(map_pixels + panel_pixels, 0) + " " + number(map_pixels, 0) +
               "\" width=\"" + number(map_pixels + panel_pixels, 0) + "\" height=\"" + number(map_pixels, 0) +
               "\" font-family=\"Inter, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">");
    canvas.raw("<defs><clipPath id=\"map\"><rect width=\"" + number(map_pixels) + "\" height=\"" + number(map_pixels) + "\"/></clipPath></defs>");
    canvas.raw("<g clip-path=\"url(#map)\"><rect width=\"" + number(map_pixels) + "\" height=\"" + number(map_pixels) + "\" fill=\"" + ink::ground + "\"/>");
    draw_roads(canvas, picture.scenario);
    draw_stop_lines(canvas, picture.scenario);
    draw_static_objects(canvas, picture.scenario);
    draw_agents(canvas, picture);
    draw_ego(canvas, picture);
    canvas.raw("</g>");
    draw_scale_bar(canvas);
    draw_panel(canvas, picture);
    canvas.raw("</svg>");

    const std::string temporary = path + ".part";
    {
        std::ofstream file(temporary);
        file << canvas.text();
        file.flush();
        if (!file) {
            throw std::runtime_error("cannot write " + temporary);
        }
    }
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
        throw std::runtime_error("cannot rename " + temporary + " to " + path);
    }
}

}  // namespace traffic
