//! The machine's compilers, and the library linked for them.
#![expect(dead_code, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a command that must succeed; what it says.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
    said.into_owned()
}

/// The archive that was built for this test: cargo tells nobody which it is, but had there been newer
/// sources than those of the newest, it would have built another.
fn archive() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let built = std::fs::read_dir(this.parent().unwrap()).unwrap();
    let paths = built.map(|entry| entry.unwrap().path());
    let archives = paths.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libtranship-") && name.ends_with(".a")
    });
    let age = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    archives.max_by_key(age).expect("cargo builds the library before its tests")
}

/// Compilers, and where their programs go.
pub(crate) struct Toolchain {
    directory: PathBuf,
    archive: PathBuf,
}

impl Toolchain {
    /// Links the library, once.
    pub(crate) fn get() -> &'static Self {
        static ONE: OnceLock<Toolchain> = OnceLock::new();
        ONE.get_or_init(|| {
            let archive = archive();
            // Several tests may be linking at a time.
            let name = format!("ffi-{}", env!("CARGO_CRATE_NAME"));
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            std::fs::create_dir_all(&directory).unwrap();
            run(Command::new(root().join("scripts/link-ffi")).args([&archive, &directory]));
            Self { directory, archive }
        })
    }

    /// The shared library.
    pub(crate) fn library(&self) -> PathBuf {
        self.directory.join("libtranship.so")
    }

    /// The archive.
    pub(crate) fn archive(&self) -> &Path {
        &self.archive
    }

    /// Compiles a program against the shared library; where it is.
    pub(crate) fn compile(&self, flavour: &str, sources: &[PathBuf], flags: &[&str]) -> PathBuf {
        let library = ["-L", self.directory.to_str().unwrap(), "-ltranship", "-lpthread"];
        self.build(flavour, sources, flags, &library)
    }

    /// Compiles a program with the library in it; where it is.
    pub(crate) fn compile_static(&self, flavour: &str, sources: &[PathBuf]) -> PathBuf {
        let archive = self.archive.to_str().unwrap();
        let system = ["-lpthread", "-ldl", "-lm", "-lgcc_s", "-Wl,--gc-sections"];
        self.build(flavour, sources, &[], &[&[archive], &system[..]].concat())
    }

    fn build(&self, flavour: &str, sources: &[PathBuf], flags: &[&str], libs: &[&str]) -> PathBuf {
        let first = &sources[0];
        let stem = first.file_stem().unwrap().to_str().unwrap();
        let program = self.directory.join(format!("{stem}-{flavour}"));
        // A test beside this one may be running what is being built.
        let fresh =
            self.directory.join(format!("{stem}-{flavour}.{:?}", std::thread::current().id()));
        let (compiler, standard) = match first.extension().unwrap().to_str() {
            Some("cpp") => ("c++", "-std=c++17"),
            _ => ("cc", "-std=c11"),
        };
        run(Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-I"])
            .arg(root().join("ffi/include"))
            .args(flags)
            .args(sources)
            .arg("-o")
            .arg(&fresh)
            .args(libs));
        std::fs::rename(fresh, &program).unwrap();
        program
    }

    /// A command that finds the shared library.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", &self.directory).env_remove("TRANSHIP_ADDRESS");
        command
    }

    /// Whether programs can be compiled and run with the address sanitizer.
    pub(crate) fn has_sanitizer(&self) -> bool {
        let source = self.directory.join("nothing.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let program = self.directory.join("nothing");
        let mut compiler = Command::new("cc");
        let compiled = compiler.arg("-fsanitize=address").arg(source).arg("-o").arg(&program);
        compiled.output().is_ok_and(|output| output.status.success())
            && Command::new(&program).output().is_ok_and(|output| output.status.success())
    }
}
