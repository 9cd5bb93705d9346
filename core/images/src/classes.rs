//! Classes matched by name.

/// The classes of several lists, each name once, in the order in which they first occur; and for each list, which class of all
/// each of its own is.
pub fn joined(lists: &[Vec<String>]) -> (Vec<String>, Vec<Vec<u32>>) {
    let mut all: Vec<String> = Vec::new();
    let mut known = std::collections::BTreeMap::new();
    let mut index = |name: &String| {
        *known.entry(name.clone()).or_insert_with(|| {
            all.push(name.clone());
            all.len() as u32 - 1
        })
    };
    let maps = lists.iter().map(|list| list.iter().map(&mut index).collect()).collect();
    (all, maps)
}

/// Two names that differ in their case alone, if there are such: probably one class under two names.
pub fn look_alike(names: &[String]) -> Option<[&str; 2]> {
    let mut known = std::collections::BTreeMap::new();
    names.iter().find_map(|name| {
        let other = known.insert(name.to_lowercase(), name.as_str())?;
        (other != name).then_some([other, name.as_str()])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_class_wherever_it_stands() {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let (all, maps) = joined(&[list(&["cat", "dog"]), list(&["dog", "cat"]), list(&["owl", "cat"])]);
        assert_eq!(all, ["cat", "dog", "owl"]);
        assert_eq!(maps, [[0, 1], [1, 0], [2, 0]]);
        assert_eq!(look_alike(&list(&["cat", "Dog", "dog"])), Some(["Dog", "dog"]));
        assert_eq!(look_alike(&list(&["cat", "dog"])), None);
    }
}
