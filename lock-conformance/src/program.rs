//! How this program is called, for whoever is to call it again.

/// How this program is called, and whether that is by way of Cargo.
pub(crate) fn this_program() -> (String, bool) {
    let program = std::env::args().next().unwrap_or_default();
    match std::env::var("CARGO_PKG_NAME") {
        Ok(package) => {
            let target = target_name(&program);
            (format!("cargo test -p {package} --test {target}"), true)
        }
        Err(_) => (program, false),
    }
}

/// The name of a test target, from the file that Cargo made of it: without the hash.
fn target_name(program: &str) -> &str {
    let file = program.rsplit('/').next().unwrap_or(program);
    match file.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_named_without_its_hash() {
        let program = "/t/debug/deps/conformance-0123456789abcdef";
        assert_eq!(target_name(program), "conformance");
        assert_eq!(target_name("lock-ctl"), "lock-ctl");
    }
}
