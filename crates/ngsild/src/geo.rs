//! Places: GeoJSON geometries (RFC 7946) and geo queries (clause 4.10).

use crate::Invalid;
use ::geo::{
    BoundingRect, Closest, CoordsIter, Distance, Haversine, HaversineClosestPoint, Intersects,
    Relate,
};
use model::{Content, Entity, Name, Value};

/// Most positions of one geometry.
pub const MAX_POSITIONS: usize = 10_000;

const SHAPES: [(&str, usize); 6] = [
    ("Point", 0),
    ("MultiPoint", 1),
    ("LineString", 1),
    ("MultiLineString", 2),
    ("Polygon", 2),
    ("MultiPolygon", 3),
];

fn shape_of(value: &Value) -> Option<(&'static str, usize)> {
    let named = value.get("type")?.as_text()?;
    SHAPES.into_iter().find(|(shape, _)| *shape == named)
}

/// Whether this looks like a geometry: one of its types, with `coordinates`.
pub fn is_geometry(value: &Value) -> bool {
    shape_of(value).is_some() && value.get("coordinates").is_some()
}

/// Checks a geometry's shape and that its positions are on the Earth.
///
/// # Errors
/// What does not fit.
pub fn check_geometry(value: &Value) -> Result<(), Invalid> {
    let Some((_, depth)) = shape_of(value) else {
        let what = "is no GeoJSON geometry (Point, LineString, Polygon and their Multi forms)";
        return Err(Invalid::data("", what));
    };
    let coordinates = value.get("coordinates").unwrap_or(&Value::Null);
    let mut positions = 0;
    check_positions(coordinates, depth, &mut positions)
        .map_err(|what| Invalid::data("/coordinates", what))?;
    match geometry(value) {
        Some(_) => Ok(()),
        None => Err(Invalid::data("/coordinates", "do not fit the geometry's type")),
    }
}

fn check_positions(value: &Value, depth: usize, positions: &mut usize) -> Result<(), String> {
    let Value::List(items) = value else {
        return Err("are no list".into());
    };
    if depth > 0 {
        return items.iter().try_for_each(|item| check_positions(item, depth - 1, positions));
    }
    *positions += 1;
    if *positions > MAX_POSITIONS {
        return Err(format!("hold more than {MAX_POSITIONS} positions"));
    }
    match items.iter().map(Value::as_number).collect::<Option<Vec<_>>>().as_deref() {
        Some([lon, lat, ..]) if lon.abs() <= 180.0 && lat.abs() <= 90.0 => Ok(()),
        Some([lon, lat, ..]) => Err(format!(
            "hold [{lon}, {lat}], which is not on Earth: longitude first (-180 to 180), then latitude"
        )),
        _ => Err("hold a position that is not [longitude, latitude]".into()),
    }
}

/// The geometry of a GeoJSON value, if it is one.
pub fn geometry(value: &Value) -> Option<::geo::Geometry> {
    use ::geo::{
        Coord, Geometry, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon,
    };
    fn list(value: &Value) -> Option<&[Value]> {
        match value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
    fn coord(value: &Value) -> Option<Coord> {
        let items = list(value)?;
        Some(Coord { x: items.first()?.as_number()?, y: items.get(1)?.as_number()? })
    }
    fn line(value: &Value) -> Option<LineString> {
        let coords = list(value)?.iter().map(coord).collect::<Option<Vec<_>>>()?;
        (coords.len() >= 2).then_some(LineString(coords))
    }
    fn polygon(value: &Value) -> Option<Polygon> {
        let mut rings = list(value)?.iter().map(line).collect::<Option<Vec<_>>>()?.into_iter();
        let outer = rings.next().filter(|ring| ring.0.len() >= 4 && ring.is_closed())?;
        Some(Polygon::new(outer, rings.collect()))
    }
    let coordinates = value.get("coordinates")?;
    Some(match shape_of(value)?.0 {
        "Point" => Geometry::Point(coord(coordinates)?.into()),
        "MultiPoint" => Geometry::MultiPoint(MultiPoint(
            list(coordinates)?.iter().map(|p| coord(p).map(Point::from)).collect::<Option<_>>()?,
        )),
        "LineString" => Geometry::LineString(line(coordinates)?),
        "MultiLineString" => Geometry::MultiLineString(MultiLineString(
            list(coordinates)?.iter().map(line).collect::<Option<_>>()?,
        )),
        "Polygon" => Geometry::Polygon(polygon(coordinates)?),
        _ => Geometry::MultiPolygon(MultiPolygon(
            list(coordinates)?.iter().map(polygon).collect::<Option<_>>()?,
        )),
    })
}

/// Longitude and latitude of an entity's `location`, if it is a point.
pub fn place_of(entity: &Entity) -> Option<(f64, f64)> {
    match &entity.attribute("location")?.default_instance()?.content {
        Content::GeoProperty(value) => match geometry(value)? {
            ::geo::Geometry::Point(point) => Some((point.x(), point.y())),
            _ => None,
        },
        _ => None,
    }
}

/// Positions of the place that a query compares others with, and of a line or one to be near to.
pub const MAX_REFERENCE: usize = 500;
pub const MAX_LINE_REFERENCE: usize = 100;
/// Positions of a piece of a line: where a line crosses itself is noted for all of a piece.
const PIECE: usize = 100;
/// Pairs of positions up to which two shapes are compared without a look at the boxes around them.
const MAX_COMPARED: usize = 100_000;

/// Metres of one degree of a great circle on the sphere that distances are taken on.
const METRES_A_DEGREE: f64 = 111_195.0;

/// How two places relate (clause 4.10, table 4.10-1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Georel {
    /// Distance in metres on the sphere.
    Near {
        min_metres: f64,
        max_metres: f64,
    },
    Within,
    Contains,
    Intersects,
    Equals,
    Disjoint,
    Overlaps,
}

/// A geo query: entities whose `property` relates so to `reference`.
#[derive(Clone, Debug)]
pub struct GeoQuery {
    pub georel: Georel,
    pub reference: ::geo::Geometry,
    pub property: Name,
}

impl GeoQuery {
    /// From the parameters `georel`, `geometry`, `coordinates` and `geoproperty`.
    ///
    /// # Errors
    /// When one is missing or does not fit.
    pub fn parse(
        georel: &str,
        geometry_type: &str,
        coordinates: &str,
        property: Name,
    ) -> Result<GeoQuery, Invalid> {
        let coordinates: Value = serde_json::from_str(coordinates)
            .map_err(|error| Invalid::data("?coordinates", format!("no JSON list: {error}")))?;
        let value = Value::Map(vec![
            ("type".into(), Value::from(geometry_type)),
            ("coordinates".into(), coordinates),
        ]);
        Self::of(georel, &value, property)
    }

    /// From a geometry as GeoJSON.
    ///
    /// # Errors
    /// When the relation or the geometry does not fit.
    pub fn of(georel: &str, value: &Value, property: Name) -> Result<GeoQuery, Invalid> {
        check_geometry(value).map_err(|invalid| Invalid::data("?coordinates", invalid.what))?;
        let reference = geometry(value)
            .ok_or_else(|| Invalid::data("?coordinates", "do not fit `geometry`"))?;
        let georel = parse_georel(georel)?;
        let near = matches!(georel, Georel::Near { .. });
        let most = if near || is_line(&reference) { MAX_LINE_REFERENCE } else { MAX_REFERENCE };
        if reference.coords_count() > most {
            let what = format!("have more than {most} positions");
            return Err(Invalid::data("?coordinates", what));
        }
        Ok(GeoQuery { georel, reference, property })
    }

    /// Whether the entity, as it is seen, matches.
    pub fn matches(&self, entity: &Entity) -> bool {
        let Some(attribute) = entity.attribute(self.property.as_str()) else { return false };
        attribute.instances.iter().any(|instance| match &instance.content {
            Content::GeoProperty(value) => {
                geometry(value).is_some_and(|place| self.relates(&place))
            }
            _ => false,
        })
    }

    /// Whether a place that is one point matches.
    pub fn takes_point(&self, lon: f64, lat: f64) -> bool {
        self.relates(&::geo::Geometry::Point(::geo::Point::new(lon, lat)))
    }

    /// West, south, east and north of what holds every point that matches; none when that may be
    /// anywhere.
    pub fn bounds(&self) -> Option<[f64; 4]> {
        let around = self.reference.bounding_rect()?;
        let (low, high) = (around.min(), around.max());
        let margin = match self.georel {
            Georel::Near { max_metres, .. } => max_metres / METRES_A_DEGREE * 1.001,
            Georel::Within | Georel::Intersects | Georel::Equals => 0.0,
            Georel::Contains | Georel::Disjoint | Georel::Overlaps => return None,
        } + 1e-9;
        let (south, north) = (low.y - margin, high.y + margin);
        // Near the poles and across the date line a box holds too little.
        if south.abs().max(north.abs()) > 85.0 {
            return None;
        }
        let margin = margin / south.abs().max(north.abs()).to_radians().cos();
        let (west, east) = (low.x - margin, high.x + margin);
        (west >= -180.0 && east <= 180.0).then_some([west, south, east, north])
    }

    fn relates(&self, place: &::geo::Geometry) -> bool {
        let work = place.coords_count().saturating_mul(self.reference.coords_count());
        if work > MAX_COMPARED && !self.boxes_meet(place) {
            return self.georel == Georel::Disjoint;
        }
        if let (Georel::Within | Georel::Intersects, ::geo::Geometry::Point(point)) =
            (self.georel, place)
        {
            return self.reference.intersects(point);
        }
        match self.georel {
            Georel::Near { min_metres, max_metres } => {
                let metres = distance_metres(place, &self.reference);
                (min_metres..=max_metres).contains(&metres)
            }
            Georel::Intersects => self.reference.intersects(place),
            Georel::Disjoint => !self.reference.intersects(place),
            Georel::Within => {
                pieces(place).iter().all(|piece| piece.relate(&self.reference).is_coveredby())
            }
            Georel::Contains => {
                pieces(place).iter().any(|piece| piece.relate(&self.reference).is_covers())
            }
            Georel::Equals => match pieces(place).as_slice() {
                [whole] => whole.relate(&self.reference).is_equal_topo(),
                _ => false,
            },
            Georel::Overlaps => {
                pieces(place).iter().any(|piece| piece.relate(&self.reference).is_overlaps())
            }
        }
    }
}

fn is_line(place: &::geo::Geometry) -> bool {
    matches!(place, ::geo::Geometry::LineString(_) | ::geo::Geometry::MultiLineString(_))
}

/// A long line in pieces that are lines themselves; whatever else, whole.
fn pieces(place: &::geo::Geometry) -> Vec<std::borrow::Cow<'_, ::geo::Geometry>> {
    use ::geo::{Geometry, LineString};
    let lines: &[LineString] = match place {
        _ if place.coords_count() <= PIECE => return vec![std::borrow::Cow::Borrowed(place)],
        Geometry::LineString(line) => std::slice::from_ref(line),
        Geometry::MultiLineString(lines) => &lines.0,
        _ => return vec![std::borrow::Cow::Borrowed(place)],
    };
    let cut = |line: &LineString| {
        let starts = (0..line.0.len().saturating_sub(1)).step_by(PIECE - 1);
        let piece = |start: usize| line.0[start..(start + PIECE).min(line.0.len())].to_vec();
        starts.map(piece).collect::<Vec<_>>()
    };
    let all = lines.iter().flat_map(cut);
    all.map(|piece| std::borrow::Cow::Owned(Geometry::LineString(LineString(piece)))).collect()
}

impl GeoQuery {
    /// Whether the boxes around both meet, or come as near as is asked for.
    fn boxes_meet(&self, place: &::geo::Geometry) -> bool {
        let Some(around) = place.bounding_rect() else { return false };
        let own = || {
            let own = self.reference.bounding_rect()?;
            Some([own.min().x, own.min().y, own.max().x, own.max().y])
        };
        let bounds = match self.georel {
            Georel::Near { .. } => self.bounds(),
            _ => own(),
        };
        let Some([west, south, east, north]) = bounds else { return true };
        around.min().x <= east
            && around.max().x >= west
            && around.min().y <= north
            && around.max().y >= south
    }
}

/// Metres between two places, exact to a point from any shape; between two shapes, from the
/// nearest corner of either.
fn distance_metres(a: &::geo::Geometry, b: &::geo::Geometry) -> f64 {
    if let (::geo::Geometry::Point(a), ::geo::Geometry::Point(b)) = (a, b) {
        return Haversine.distance(*a, *b);
    }
    if a.intersects(b) {
        return 0.0;
    }
    let nearest = |shape: &::geo::Geometry, corners: &::geo::Geometry| {
        corners
            .coords_iter()
            .map(|corner| {
                let corner = ::geo::Point::from(corner);
                match shape.haversine_closest_point(&corner) {
                    Closest::Intersection(_) => 0.0,
                    Closest::SinglePoint(point) => Haversine.distance(point, corner),
                    Closest::Indeterminate => f64::INFINITY,
                }
            })
            .fold(f64::INFINITY, f64::min)
    };
    nearest(a, b).min(nearest(b, a))
}

fn parse_georel(text: &str) -> Result<Georel, Invalid> {
    let wrong = |what: &str| {
        Err(Invalid::data(
            "?georel",
            format!(
                "`{text}` {what}: near;maxDistance==METRES, within, contains, intersects, equals, disjoint or overlaps"
            ),
        ))
    };
    match text {
        "within" => return Ok(Georel::Within),
        "contains" => return Ok(Georel::Contains),
        "intersects" => return Ok(Georel::Intersects),
        "equals" => return Ok(Georel::Equals),
        "disjoint" => return Ok(Georel::Disjoint),
        "overlaps" => return Ok(Georel::Overlaps),
        _ => {}
    }
    let Some(limits) = text.strip_prefix("near;") else { return wrong("is none of") };
    let (mut min_metres, mut max_metres) = (0.0, f64::INFINITY);
    for limit in limits.split(';') {
        let metres = limit.split_once("==").and_then(|(_, number)| number.parse::<f64>().ok());
        match (limit.split("==").next(), metres) {
            (Some("maxDistance"), Some(metres)) if metres >= 0.0 => max_metres = metres,
            (Some("minDistance"), Some(metres)) if metres >= 0.0 => min_metres = metres,
            _ => return wrong("has a distance that is no number; one of"),
        }
    }
    Ok(Georel::Near { min_metres, max_metres })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(lon: f64, lat: f64) -> ::geo::Geometry {
        ::geo::Geometry::Point(::geo::Point::new(lon, lat))
    }

    #[test]
    fn relations() {
        let square = "[[[0,0],[2,0],[2,2],[0,2],[0,0]]]";
        let check = |georel: &str, shape: &str, coordinates: &str, lon: f64, lat: f64| {
            GeoQuery::parse(georel, shape, coordinates, Name::new("location"))
                .unwrap()
                .relates(&point(lon, lat))
        };
        assert!(check("within", "Polygon", square, 1.0, 1.0));
        assert!(!check("within", "Polygon", square, 3.0, 1.0));
        assert!(check("disjoint", "Polygon", square, 3.0, 1.0));
        assert!(check("near;maxDistance==1200", "Point", "[107.61,-6.91]", 107.62, -6.91));
        assert!(!check("near;maxDistance==1000", "Point", "[107.61,-6.91]", 107.62, -6.91));
        assert!(check("near;minDistance==1000", "Point", "[107.61,-6.91]", 107.62, -6.91));
        assert!(check("near;maxDistance==120000", "Polygon", square, 3.0, 1.0));
        assert!(!check("near;maxDistance==100000", "Polygon", square, 3.0, 1.0));
    }

    #[test]
    fn refuses_with_the_place() {
        let check = |georel: &str, shape: &str, coordinates: &str| {
            GeoQuery::parse(georel, shape, coordinates, Name::new("location")).unwrap_err().place
        };
        assert_eq!(check("inside", "Point", "[0,0]"), "?georel");
        assert_eq!(check("near;maxDistance==x", "Point", "[0,0]"), "?georel");
        assert_eq!(check("within", "Point", "[0,91]"), "?coordinates");
        assert_eq!(check("within", "Polygon", "[[[0,0],[1,1],[0,1]]]"), "?coordinates");
        assert_eq!(check("within", "Circle", "[0,0]"), "?coordinates");
        assert_eq!(check("within", "Point", "0,0"), "?coordinates");
    }
}
