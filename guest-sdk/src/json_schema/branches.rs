//! References, `allOf`, `anyOf` and `oneOf`, written out.
//!
//! In: schemas that all hold at one place. Out: branches, each a list of schemas whose own
//! keywords all hold; and whether two alternatives can hold at once. Work is counted by
//! the builder and bounded.

use std::collections::BTreeSet;

use super::{
    SchemaError,
    grammar::{ALTERNATIVES_MAX, Builder, Set, both_numbers},
    keywords::{Id, Keywords, Types},
    value::Value,
};

impl Builder<'_> {
    /// Writes out references, `allOf` and `anyOf`: each branch is a list of schemas whose
    /// own keywords all hold.
    pub(super) fn branches(&self, set: &Set) -> Result<Vec<Vec<Id>>, SchemaError> {
        #[derive(Clone)]
        enum Todo<'a> {
            Holds(Id),
            Either(&'a [Id]),
        }
        let mut found = Vec::new();
        let first: Vec<Todo<'_>> = set.iter().rev().map(|id| Todo::Holds(*id)).collect();
        let mut open = vec![(first, Vec::<Id>::new())];
        'branch: while let Some((mut todo, mut branch)) = open.pop() {
            while let Some(next) = todo.pop() {
                self.works(branch.len() / 16)?;
                match next {
                    Todo::Holds(id) if branch.contains(&id) => {}
                    Todo::Holds(id) => {
                        let schema = self.schema(id);
                        if schema.never {
                            continue 'branch;
                        }
                        branch.push(id);
                        self.check_one_of(id, schema)?;
                        todo.extend(schema.any_of.iter().rev().map(|list| Todo::Either(list)));
                        todo.extend(schema.all_of.iter().rev().map(|id| Todo::Holds(*id)));
                    }
                    Todo::Either(list) => {
                        if open.len() + list.len() > ALTERNATIVES_MAX * 4 {
                            let what =
                                "its combinations of `anyOf` are too many to write out".to_owned();
                            return Err(SchemaError::TooComplex { what });
                        }
                        for id in list.iter().rev() {
                            self.works(todo.len() + branch.len())?;
                            let mut todo = todo.clone();
                            todo.push(Todo::Holds(*id));
                            open.push((todo, branch.clone()));
                        }
                        continue 'branch;
                    }
                }
            }
            branch.sort_unstable();
            found.push(branch);
        }
        Ok(found)
    }

    /// `oneOf` is written as `anyOf`, which is the same only where no two can hold at once.
    fn check_one_of(&self, id: Id, schema: &Keywords) -> Result<(), SchemaError> {
        let Some(list) = &schema.one_of else {
            return Ok(());
        };
        if !self.checked.borrow_mut().insert(id) {
            return Ok(());
        }
        for (at, a) in list.iter().enumerate() {
            for (later, b) in list.iter().enumerate().skip(at + 1) {
                if !self.apart(&Set::from([*a]), &Set::from([*b]), 0)? {
                    return Err(SchemaError::Unsupported {
                        pointer: format!("{}/oneOf", schema.pointer),
                        what: format!(
                            "alternatives {at} and {later} may hold at once; write `anyOf`, or give them a key with different `const`"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether it is certain that no value satisfies both sets.
    fn apart(&self, a: &Set, b: &Set, depth: u32) -> Result<bool, SchemaError> {
        /// Objects within objects that are searched for a key that tells them apart.
        const DEPTH_MAX: u32 = 2;
        if depth > DEPTH_MAX {
            return Ok(false);
        }
        let (left, right) = (self.flat(a)?, self.flat(b)?);
        for a in &left {
            for b in &right {
                if !self.branches_apart(a, b, depth)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// [`Builder::branches`] without the check of `oneOf`, which would not end on recursion.
    fn flat(&self, set: &Set) -> Result<Vec<Vec<Id>>, SchemaError> {
        let mut found = Vec::new();
        let mut open = vec![(
            set.iter().copied().collect::<Vec<Id>>(),
            Vec::new(),
            Vec::<&[Id]>::new(),
        )];
        'branch: while let Some((mut todo, mut branch, mut choices)) = open.pop() {
            loop {
                self.works(1)?;
                if let Some(id) = todo.pop() {
                    let schema = self.schema(id);
                    if schema.never {
                        continue 'branch;
                    }
                    if !branch.contains(&id) {
                        branch.push(id);
                        todo.extend(&schema.all_of);
                        choices.extend(schema.any_of.iter().map(Vec::as_slice));
                    }
                } else if let Some(list) = choices.pop() {
                    for id in list {
                        self.works(branch.len())?;
                        open.push((vec![*id], branch.clone(), choices.clone()));
                    }
                    continue 'branch;
                } else {
                    found.push(branch);
                    continue 'branch;
                }
            }
        }
        Ok(found)
    }

    fn branches_apart(&self, a: &[Id], b: &[Id], depth: u32) -> Result<bool, SchemaError> {
        let both = || a.iter().chain(b).map(|id| self.schema(*id));
        self.works(a.len() + b.len())?;
        let types = both().fold(Types::ALL.0, |types, schema| types & schema.types.0);
        if types == 0 {
            return Ok(true);
        }
        if let Some(literals) = both().find_map(|schema| schema.literals.as_ref()) {
            let judge = self.judge();
            let all = |value: &Value| both().all(|schema| judge.says(schema, value, 0));
            return Ok(!literals.iter().any(all));
        }
        let numeric = Types::INTEGER.0 | Types::FRACTION.0;
        if types & !numeric == 0 {
            return Ok(!both_numbers(both()).any());
        }
        if types != Types::OBJECT.0 {
            return Ok(false);
        }
        let required = |list: &[Id]| -> BTreeSet<&str> {
            list.iter()
                .flat_map(|id| &self.schema(*id).required)
                .map(String::as_str)
                .collect()
        };
        let (ours, theirs) = (required(a), required(b));
        let forbids = |list: &[Id], key: &str| {
            list.iter().any(|id| {
                let place = self.member(self.schema(*id), key);
                place.is_some_and(|id| self.schema(id).never)
            })
        };
        if ours.iter().any(|key| forbids(b, key)) || theirs.iter().any(|key| forbids(a, key)) {
            return Ok(true);
        }
        for key in ours.intersection(&theirs) {
            let set = |list: &[Id]| {
                list.iter()
                    .filter_map(|id| self.member(self.schema(*id), key))
                    .collect::<Set>()
            };
            if self.apart(&set(a), &set(b), depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
