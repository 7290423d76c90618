//! Paths of fields, kept on the stack while walking and written only when there is something to report.

use std::fmt;

/// One step of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Segment<'a> {
    /// A field of a struct.
    Field(&'static str),
    /// A key of a map, or of an object of unknown type.
    Key(&'a str),
    Index(usize),
}

/// A path: a list from the innermost step outwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a>(Option<(&'a Path<'a>, Segment<'a>)>);

impl Path<'static> {
    pub(crate) const ROOT: Self = Path(None);
}

impl<'a> Path<'a> {
    pub(crate) fn join(&'a self, segment: Segment<'a>) -> Path<'a> {
        Path(Some((self, segment)))
    }

    fn segments(&self) -> Vec<Segment<'a>> {
        let (mut out, mut at) = (Vec::new(), self.0);
        while let Some((parent, segment)) = at {
            out.push(segment);
            at = parent.0;
        }
        out.reverse();
        out
    }

    /// The field names only, as Go's JSON errors show a path: `spec.containers.name`.
    pub(crate) fn fields(&self) -> String {
        let fields = self.segments().into_iter().filter_map(|segment| match segment {
            Segment::Field(name) => Some(name),
            Segment::Key(_) | Segment::Index(_) => None,
        });
        fields.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments().into_iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            match segment {
                Segment::Field(name) => write!(f, "{dot}{name}")?,
                Segment::Key(key) => write!(f, "{dot}{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
