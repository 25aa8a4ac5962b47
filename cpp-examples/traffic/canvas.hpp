// A minimal SVG writer: a view of the plane in metres, drawn in pixels.
#pragma once

#include "geometry.hpp"

#include <sstream>
#include <string>

namespace traffic {

class Canvas {
public:
    // The square view of `metres` side around `center`, turned so that `up` points up, on `pixels` x `pixels`.
    Canvas(Point center, double up, double metres, double pixels);

    double scale() const { return scale_; }  // pixels per metre
    Point to_pixels(Point p) const;

    // `style` is any SVG attributes, such as fill="#fff". Widths are pixels.
    void polygon(const std::vector<Point>& points, const std::string& style);
    void line(const std::vector<Point>& points, const std::string& style);
    void circle(Point center, double radius_pixels, const std::string& style);
    void box(const Box& box, double corner_radius_metres, const std::string& style);
    void raw(const std::string& svg) { out_ << svg << '\n'; }
    std::string path_data(const std::vector<Point>& points, bool closed) const;
    std::string text() const { return out_.str(); }

private:
    Point center_;
    double angle_;
    double scale_;
    double middle_;
    std::ostringstream out_;
};

// A number with one decimal, for attributes.
std::string number(double value, int decimals = 1);
std::string escaped(const std::string& text);

}  // namespace traffic
