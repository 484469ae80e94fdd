use super::*;

fn source() -> Source<'static> {
    Source { library: Path::new("libnothing.so.1"), packages: "libnothing1", oldest: "1.0" }
}

#[test]
fn a_library_that_is_missing_is_not_installed() {
    let error = source().open().expect_err("there is none of that name");
    assert!(error.is_absent(), "{error:?}");
    assert_eq!(error.to_string(), "libnothing.so.1 is not installed; install libnothing1");
    let path = std::env::temp_dir().join("there/is/no/libnothing.so.1");
    let error = Source { library: &path, ..source() }.open().expect_err("nor there");
    assert!(error.is_absent(), "{error:?}");
}

#[test]
fn a_file_that_is_no_library_is_not_said_to_be_missing() {
    let path =
        std::env::current_exe().expect("a test runs from a file").with_extension("no-library");
    std::fs::write(&path, "these are words, and no ELF file at all")
        .expect("the directory is writable");
    let error = Source { library: &path, ..source() }.open().expect_err("it has words in it");
    std::fs::remove_file(&path).expect("it was written");
    assert!(matches!(error, LoadError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("install libnothing1 again"), "{error}");
}

#[test]
fn what_a_library_needs_is_not_the_library() {
    let error = source()
        .refused("libother.so.200: cannot open shared object file: No such file or directory");
    assert!(matches!(error, LoadError::Unusable { .. }), "{error:?}");
    let error = source()
        .refused("libnothing.so.1: cannot open shared object file: No such file or directory");
    assert!(error.is_absent(), "{error:?}");
}

#[test]
fn a_library_of_the_system_opens_and_lacks_what_it_has_not() {
    let source = Source { library: Path::new("libc.so.6"), ..source() };
    let library = source.open().expect("every Linux with glibc has it");
    // SAFETY: the symbol is only looked for.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>("nobody_has_this") };
    assert!(symbol.is_err());
    assert_eq!(
        source.without("nobody_has_this").to_string(),
        "libc.so.6 has no nobody_has_this; it is not the library of libnothing1, or older than 1.0"
    );
}
