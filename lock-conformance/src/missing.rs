//! What a machine may lack without failing a test.

use std::env;

/// Whether `LOCK_TEST_ALLOW_MISSING`, a list separated by commas, names `what`.
#[must_use]
pub fn missing_is_allowed(what: &str) -> bool {
    env::var("LOCK_TEST_ALLOW_MISSING").is_ok_and(|list| names(&list, what))
}

fn names(list: &str, what: &str) -> bool {
    list.split(',').any(|name| name.trim() == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_in_the_list_count() {
        assert!(names("redis", "redis"));
        assert!(names("zk, redis", "redis"));
        assert!(!names("redis-sentinel", "redis"));
        assert!(!names("", "redis"));
    }
}
