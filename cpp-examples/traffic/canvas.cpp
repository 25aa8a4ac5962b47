#include "canvas.hpp"

#include <cstdio>

namespace traffic {

std::string number(double value, int decimals) {
    char text[48];
    std::snprintf(text, sizeof text, "%.*f", decimals, value);
    return text;
}

std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        result += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
    }
    return result;
}

Canvas::Canvas(Point center, double up, double metres, double pixels)
    : center_(center), angle_(pi / 2.0 - up), scale_(pixels / metres), middle_(pixels / 2.0) {}

Point Canvas::to_pixels(Point p) const {
    const Point d = p - center_;
    const double c = std::cos(angle_), s = std::sin(angle_);
    return {middle_ + scale_ * (c * d.x - s * d.y), middle_ - scale_ * (s * d.x + c * d.y)};
}

std::string Canvas::path_data(const std::vector<Point>& points, bool closed) const {
    std::string data;
    for (const Point p : points) {
        const Point q = to_pixels(p);
        data += (data.empty() ? "M" : "L") + number(q.x) + " " + number(q.y);
    }
    return closed ? data + "Z" : data;
}

void Canvas::polygon(const std::vector<Point>& points, const std::string& style) {
    raw("<path d=\"" + path_data(points, true) + "\" " + style + "/>");
}

void Canvas::line(const std::vector<Point>& points, const std::string& style) {
    raw("<path fill=\"none\" d=\"" + path_data(points, false) + "\" " + style + "/>");
}

void Canvas::circle(Point center, double radius_pixels, const std::string& style) {
    const Point q = to_pixels(center);
    raw("<circle cx=\"" + number(q.x) + "\" cy=\"" + number(q.y) + "\" r=\"" + number(radius_pixels) + "\" " + style + "/>");
}

void Canvas::box(const Box& box, double corner_radius_metres, const std::string& style) {
    const Point q = to_pixels(box.center);
    const double length = box.length * scale_, width = box.width * scale_;
    const double degrees = -(box.heading + angle_) * 180.0 / pi;
    raw("<rect x=\"" + number(-length / 2.0) + "\" y=\"" + number(-width / 2.0) + "\" width=\"" + number(length) +
        "\" height=\"" + number(width) + "\" rx=\"" + number(corner_radius_metres * scale_) + "\" transform=\"translate(" +
        number(q.x) + " " + number(q.y) + ") rotate(" + number(degrees) + ")\" " + style + "/>");
}

}  // namespace traffic
