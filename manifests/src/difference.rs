//! `Difference`: a field in which two documents of one kind differ.
//!
//! In: two documents' values, field by field. Out: the fields that differ, in the documents'
//! order, both values as people read them.

/// A field in which two documents differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// Its value in the document that was asked.
    pub this: String,
    /// Its value in the other.
    pub other: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} here, {} there",
            self.field, self.this, self.other
        )
    }
}

/// Those found so far.
#[derive(Debug, Default)]
pub(crate) struct Differences(Vec<Difference>);

impl Differences {
    /// Notes the field if its values are not equal, whatever they look like.
    pub(crate) fn compare<T: PartialEq + std::fmt::Display>(
        &mut self,
        field: &str,
        this: &T,
        other: &T,
    ) {
        if this != other {
            self.0.push(Difference {
                field: field.to_owned(),
                this: this.to_string(),
                other: other.to_string(),
            });
        }
    }
}

impl From<Differences> for Vec<Difference> {
    fn from(found: Differences) -> Self {
        found.0
    }
}
