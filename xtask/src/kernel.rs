//! `cargo xtask kernel`: the tests that need a kernel with more than that of this machine (WireGuard, AppArmor, NFS, control groups of version 2 alone), on Debian's kernel in an emulated machine (QEMU). Nothing on this machine changes: the emulated one sees its files, and what it writes stays in its own memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{debian, images, kubectl, tools};

/// `apparmor` has the program that loads profiles, `kmod` loads modules when the kernel asks for them.
const PACKAGES: &[&str] = &["apparmor", "busybox-static", "kmod", "qemu-system-x86"];
/// An NFS server, which is unpacked and not installed: nothing of it is to start here, now or later. The libraries that it needs come with it.
const NFS_PACKAGES: &[&str] = &["nfs-kernel-server", "nfs-common", "rpcbind"];
/// What the emulated machine needs before it sees this one's files.
const FIRST_MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// How long the emulated machine may take, in seconds: a test that hangs there has nobody else who ends it.
const TIME: &str = "3600";
/// How long it may take to end when it is told to, in seconds.
const GRACE: &str = "10";
/// What timeout(1) ends with when the time was too short, and when the grace was, too.
const TOO_LONG: [i32; 2] = [124, 137];
/// What the last line of the emulated machine's console begins with.
const ENDED: &str = "knarr-kernel-tests-ended ";

/// Options of `cargo xtask kernel`.
#[derive(Args)]
pub struct Options {
    /// Further arguments of the test program, such as a filter.
    #[arg(last = true)]
    test: Vec<String>,
}

/// Fetches the kernel, builds the tests and runs them there.
pub fn run(options: &Options) -> Result<()> {
    tools::install(PACKAGES)?;
    kubectl::path()?;
    images::build(&tools::work_dir().join("images"))?;
    let kernel = Kernel::fetch()?;
    let nfs = fetch_nfs()?;
    let programs = build()?;
    let job = kernel.directory.join("job");
    fs::create_dir_all(&job)?;
    let arguments: Vec<String> = options.test.iter().map(|argument| format!("'{}'", argument.replace('\'', "'\\''"))).collect();
    let xtask = std::env::current_exe()?;
    let test = |program: &PathBuf| {
        format!("{} --ignored --test-threads 1 --nocapture {} || failed=1\n", program.display(), arguments.join(" "))
    };
    let script = format!(
        "cd {root}\nexport KNARR_TEST_PATIENCE=600 KNARR_TEST_NFS={nfs}\n{xtask} images --serve || exit 1\nfailed=0\n{tests}exit $failed\n",
        root = tools::root().join("knarr").display(),
        nfs = nfs.display(),
        xtask = xtask.display(),
        tests = programs.iter().map(test).collect::<String>(),
    );
    fs::write(job.join("run"), script)?;
    kernel.boot(&job)
}

/// The programs of the tests, and with them the binary that they run. They are built as those of the whole workspace are: by themselves their
/// dependencies would have other features, and be built once more.
fn build() -> Result<Vec<PathBuf>> {
    let mut cargo = tools::cargo();
    cargo.args(["test", "--workspace", "--locked", "--no-run", "--message-format", "json"]);
    let messages = tools::output(&mut cargo)?;
    let program = |kind: &str, name: &str| {
        let (kind, name) = (format!(r#""kind":["{kind}"]"#), format!(r#""name":"{name}""#));
        let mut lines = messages.lines().filter(|line| line.contains(&kind) && line.contains(&name));
        let found = lines.find_map(|line| line.split_once(r#""executable":""#)?.1.split('"').next());
        found.map(PathBuf::from).with_context(|| format!("cargo names no test program of {name}"))
    };
    Ok(vec![program("lib", "network")?, program("test", "kernel")?])
}

/// Unpacks Debian's newest kernel into a directory.
fn unpack(directory: &Path) -> Result<()> {
    let depends = tools::output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let package =
        depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).context("linux-image-amd64 needs no kernel")?;
    debian::download([package], directory)
}

/// The programs of an NFS server, with the libraries that this machine does not have.
fn fetch_nfs() -> Result<PathBuf> {
    let directory = tools::work_dir().join("kernel-nfs");
    if !directory.exists() {
        eprintln!("fetching an NFS server");
        tools::make_whole(&directory, |directory| {
            let depends = tools::output(Command::new("apt-cache").arg("depends").args(NFS_PACKAGES))?;
            let needed = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            let libraries: BTreeSet<&str> = needed.filter(|name| name.starts_with("lib") && !tools::installed(name)).collect();
            debian::download(NFS_PACKAGES.iter().copied().chain(libraries), directory)
        })?;
    }
    Ok(directory)
}

/// Runs the program that its further arguments name, for at most so many seconds, and as many more as it may take to end.
fn limited(seconds: &str, grace: &str) -> Command {
    let mut timeout = Command::new("timeout");
    // In this process group, so that the terminal's signals reach it, too.
    timeout.args(["--foreground", "--kill-after", grace, seconds]);
    timeout
}

/// Whether that is how a program ended that [`limited`] has run.
fn took_too_long(ended: ExitStatus) -> bool {
    ended.code().is_some_and(|code| TOO_LONG.contains(&code))
}

/// Debian's kernel with its modules, unpacked beside what is installed.
struct Kernel {
    directory: PathBuf,
    /// `6.1.0-57-amd64`
    release: String,
}

impl Kernel {
    fn fetch() -> Result<Self> {
        let directory = tools::work_dir().join("kernel");
        if Self::release(&directory).is_err() {
            eprintln!("fetching a kernel");
            tools::make_whole(&directory, unpack)?;
        }
        let kernel = Self { release: Self::release(&directory)?, directory };
        tools::run(Command::new("depmod").arg("-b").arg(&kernel.directory).arg(&kernel.release))?;
        Ok(kernel)
    }

    fn release(directory: &Path) -> Result<String> {
        let mut names =
            fs::read_dir(directory.join("lib/modules"))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.next().context("no modules")
    }

    /// The file system that the kernel begins with: busybox, the first modules, and a script.
    fn first_files(&self) -> Result<PathBuf> {
        let root = self.directory.join("first");
        tools::remove(&root)?;
        for directory in ["bin", "dev", "proc", "sys", "ro", "rw"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        let modules = Path::new("lib/modules").join(&self.release);
        let listed = fs::read_to_string(self.directory.join(&modules).join("modules.dep"))?;
        for line in listed.lines() {
            let (module, needs) = line.split_once(':').unwrap_or_default();
            if FIRST_MODULES.iter().any(|name| module.ends_with(&format!("/{name}.ko"))) {
                for file in std::iter::once(module).chain(needs.split_whitespace()) {
                    let file = modules.join(file);
                    fs::create_dir_all(root.join(&file).parent().unwrap_or(&root))?;
                    fs::copy(self.directory.join(&file), root.join(&file))?;
                }
            }
        }
        tools::run(Command::new("depmod").arg("-b").arg(&root).arg(&self.release))?;
        let script = include_str!("kernel/init.sh").replace("@MODULES@", &FIRST_MODULES.join(" ")).replace("@ENDED@", ENDED);
        fs::write(root.join("init"), script)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        let archive = self.directory.join("first.cpio");
        let names = Command::new("find").arg(".").current_dir(&root).stdout(Stdio::piped()).spawn()?;
        let mut pack = Command::new("/bin/busybox");
        pack.args(["cpio", "-o", "-H", "newc"]).current_dir(&root).stderr(Stdio::null());
        pack.stdin(names.stdout.context("find prints")?).stdout(File::create(&archive)?);
        ensure!(pack.status()?.success(), "the first files cannot be packed");
        Ok(archive)
    }

    /// Boots, runs the script `run` in `job`, and shows what it prints.
    fn boot(&self, job: &Path) -> Result<()> {
        let share = |tag: &str, path: &Path| {
            let path = path.display();
            ["-virtfs".to_owned(), format!("local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap")]
        };
        let console = self.directory.join("console.log");
        let mut qemu = limited(TIME, GRACE);
        qemu.arg("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", "8192", "-nographic", "-no-reboot"]);
        qemu.arg("-kernel").arg(self.directory.join(format!("boot/vmlinuz-{}", self.release)));
        qemu.arg("-initrd").arg(self.first_files()?).args(["-append", "console=ttyS0 panic=-1 quiet"]);
        qemu.args(share("root", Path::new("/")))
            .args(share("modules", &self.directory.join("lib/modules")))
            .args(share("job", job));
        let show = format!("tee {}", console.display());
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut machine = qemu.spawn()?;
        let shown = Command::new("sh").args(["-c", &show]).stdin(machine.stdout.take().context("QEMU prints")?).status()?;
        let ended = machine.wait()?;
        ensure!(!took_too_long(ended), "the emulated machine was ended after {TIME} s");
        ensure!(ended.success() && shown.success(), "the emulated machine failed");
        let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        match text.lines().find_map(|line| line.trim_end().strip_prefix(ENDED)) {
            Some("0") => Ok(()),
            Some(code) => bail!("the tests ended with {code}"),
            None => bail!("the emulated machine ended before the tests"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_take_too_long() {
        let check = |seconds: &str, script: &str, expected: bool| {
            let ended = limited(seconds, "0.1").args(["sh", "-c", script]).status().unwrap();
            assert_eq!(took_too_long(ended), expected, "{script}: {ended}");
        };
        check("60", "exit 0", false);
        check("60", "exit 1", false);
        check("60", "kill -KILL $$", false);
        check("0.1", "exec sleep 60", true);
        check("0.1", "trap '' TERM; exec sleep 60", true);
    }
}
