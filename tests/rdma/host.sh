# What `run` and `pair` share on the host: a kernel, an initramfs, test binaries, a guest that runs a suite.
# Sourced, never run. The reasons behind the odd choices are in README.md.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tranship/rdma
packages=(qemu-system-x86 busybox-static dash cpio xz-utils kmod binutils rdma-core ibverbs-providers ibverbs-utils
	iproute2 iputils-ping python3)
tools=(ip tc rdma ping ibv_devinfo ibv_rc_pingpong)
modules=(rdma_rxe rdma_ucm ib_uverbs crc32_generic crc32_pclmul veth sch_netem vgem virtio_net virtio_pci 9p 9pnet_virtio)

skip() {
	echo "skipped: $*"
	exit 0
}

fail() {
	echo "rdma: $*" >&2
	exit 1
}

# Ends what runs and removes what was made, however the script ends.
cleanup() {
	local job
	for job in $(jobs -p); do
		kill -TERM -- "-$job" 2>/dev/null || true
		wait "$job" 2>/dev/null || true
	done
	rm -rf "$work" "$unfinished"
}

work=$(mktemp -d)
# What is made for the cache is made here and renamed when it is whole.
unfinished=$cache/.unfinished.$$
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages() {
	if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
		skip 'the guest is made of Debian packages and there is no apt here'
	fi
	local missing=() name
	for name in "${packages[@]}"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true) == installed ]] || missing+=("$name")
	done
	((${#missing[@]})) || return 0
	((EUID == 0)) || skip "only root can install what is missing: ${missing[*]}"
	echo "installing ${missing[*]}"
	apt-get -qq update >/dev/null || skip 'apt-get update failed: the package lists cannot be had'
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
		"${missing[@]}" >/dev/null || skip "apt could not install ${missing[*]}"
}

# Sets `kernel` to a folder with `root/` (the package, unpacked and not installed), `vmlinux` and `version`.
find_kernel() {
	local package offset
	package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
	[[ $package == linux-image-6.1.* ]] ||
		skip "the guest needs Debian 12's kernel 6.1 and apt offers '${package:-none}': 6.12 corrupts data under loss"
	kernel=$cache/$package
	[[ -e $kernel/vmlinux ]] && return
	mkdir -p "$cache"
	mkdir "$unfinished"
	(cd "$unfinished" && apt-get -qq download "$package" 2>/dev/null) || skip "apt could not download $package"
	dpkg -x "$unfinished"/*.deb "$unfinished/root"
	rm "$unfinished"/*.deb
	echo "${package#linux-image-}" >"$unfinished/version"
	# An uncompressed kernel boots by PVH: unpacking itself costs it seconds where every instruction is emulated.
	while IFS=: read -r offset _; do
		tail -c +$((offset + 1)) "$unfinished"/root/boot/vmlinuz-* | xz -dcq --single-stream >"$unfinished/vmlinux" 2>/dev/null || true
		[[ $(head -c 4 "$unfinished/vmlinux") == $'\x7fELF' ]] && break
	done < <(LC_ALL=C grep -aboP '\xfd7zXZ\x00' "$unfinished"/root/boot/vmlinuz-*)
	[[ $(head -c 4 "$unfinished/vmlinux") == $'\x7fELF' ]] || fail "no xz kernel inside $package: find_kernel must learn its format"
	mv -T "$unfinished" "$kernel" 2>/dev/null || rm -r "$unfinished" # another run was faster
}

# The shared libraries of program $1, copied below $2.
copy_libraries() {
	local library
	ldd "$1" 2>/dev/null | awk '/=> \// { print $3 } /^\t\/lib/ { print $1 }' | while read -r library; do
		[[ -e $2$library ]] || install -D "$(realpath "$library")" "$2$library"
	done
}

archive() {
	(cd "$1" && find . -mindepth 1 -print0 | sort -z | cpio -0 -o -H newc --quiet --owner 0:0)
}

# Sets `base` to the initramfs that all suites start from. Not compressed: the guest would unpack it slowly.
find_base() {
	local version key tree name path file
	version=$(<"$kernel/version")
	key=$(cat "$here/host.sh" "$here/init" <(dpkg-query -W "${packages[@]}") | sha256sum | cut -c 1-16)
	base=$cache/base-$version-$key.cpio
	[[ -e $base ]] && touch "$base" && return
	find "$cache" -maxdepth 1 -name 'base-*' -mtime +7 -delete
	tree=$work/base
	mkdir -p "$tree"/{bin,sbin,usr/bin,lib64,lib/modules/"$version",proc,sys,dev,tmp,run,root,test,out}
	mkdir -p "$tree"/etc/libibverbs.d "$tree"/usr/lib/x86_64-linux-gnu/libibverbs
	cp /bin/busybox "$tree/bin/busybox"
	for name in bin/modprobe sbin/modprobe; do ln -s /bin/busybox "$tree/$name"; done
	# Not busybox's shell: Debian builds it to prefer its own applets, `ip` too, whatever PATH says.
	cp -L /bin/dash "$tree/bin/sh"
	copy_libraries /bin/dash "$tree"
	for name in "${tools[@]}"; do
		path=$(PATH=$PATH:/sbin:/usr/sbin command -v "$name") || fail "$name is not installed: reinstall ${packages[*]}"
		cp -L "$path" "$tree/usr/bin/$name"
		copy_libraries "$path" "$tree"
	done
	cp /etc/libibverbs.d/rxe.driver "$tree/etc/libibverbs.d/"
	for path in /usr/lib/x86_64-linux-gnu/libibverbs/librxe-*.so; do cp -L "$path" "$tree$path"; done
	for path in /usr/lib/x86_64-linux-gnu/lib{ibverbs,rdmacm}.so.1 /lib/x86_64-linux-gnu/libgcc_s.so.1; do
		[[ -e $path ]] || continue
		[[ -e $tree$path ]] || install -D "$(realpath "$path")" "$tree$path"
		copy_libraries "$path" "$tree"
	done
	PATH=$PATH:/sbin:/usr/sbin
	depmod -b "$kernel/root" "$version" 2>/dev/null
	for name in "${modules[@]}"; do
		modprobe -d "$kernel/root" -S "$version" -D "$name" 2>/dev/null || true
	done | awk '/^insmod/ && !seen[$2]++ { print $2 }' | while read -r file; do
		cp "$file" "$tree/lib/modules/$version/"
	done
	cp "$kernel/root/lib/modules/$version"/modules.{builtin,order} "$tree/lib/modules/$version/"
	depmod -b "$tree" "$version" 2>/dev/null
	install -m 755 "$here/init" "$tree/init"
	echo 'root:x:0:0::/root:/bin/sh' >"$tree/etc/passwd"
	echo '127.0.0.1 localhost' >"$tree/etc/hosts"
	archive "$tree" >"$unfinished"
	mv "$unfinished" "$base"
}

# Builds target $2 with what follows for cargo, and puts it, stripped, below $1. Sets `binary` to where it was built.
build() {
	local tree=$1 target=$2 line
	shift 2
	# Without debug information, which the guest would have to hold in memory.
	line=$(cd "$root" && CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 "${CARGO:-cargo}" "$@" -q \
		--message-format=json </dev/null | grep "\"name\":\"$target\"" | grep '"executable":"') ||
		fail "target $target does not build: cargo $*"
	binary=${line##*\"executable\":\"}
	binary=${binary%%\"*}
	strip -o "$tree/test/$target" "$binary"
	copy_libraries "$binary" "$tree"
}

# Packs suite $1 into initramfs $2; what follows are arguments for its tests. Sets `limit`.
pack() {
	local suite=$1 image=$2 tree=$work/suite package features target binary
	shift 2
	rm -rf "$tree"
	mkdir -p "$tree/test"
	cp "$here/guest.sh" "$here/suites/$suite/run.sh" "$tree/test/"
	limit=${TRANSHIP_RDMA_LIMIT:-$(cat "$here/suites/$suite/limit" 2>/dev/null || echo 120)}
	if [[ -e $here/suites/$suite/tests ]]; then
		while read -r package features target; do
			[[ $features != - ]] || features=
			build "$tree" "$target" test --no-run -p "$package" --features "$features" --test "$target"
		done <"$here/suites/$suite/tests"
	fi
	if [[ -e $here/suites/$suite/programs ]]; then
		while read -r package target; do
			build "$tree" "$target" build -p "$package" --bin "$target"
			echo "$binary" >>"$tree/test/programs"
		done <"$here/suites/$suite/programs"
	fi
	# Arguments and the variables that our tests read, quoted for the guest's shell.
	{
		local name argument
		for name in $(compgen -e | grep -E '^(TRANSHIP_|RUST_)' || true); do
			printf "export %s='%s'\n" "$name" "${!name//\'/\'\\\'\'}"
		done
		printf 'set --'
		for argument in "$@"; do printf " '%s'" "${argument//\'/\'\\\'\'}"; done
		echo
	} >"$tree/test/arguments"
	# In the base lib64 is where the loader is; a second archive may add to it.
	{ cat "$base"; archive "$tree"; } >"$image"
}

# Sets `out` to an empty folder for what suite $1 keeps.
empty_out() {
	out=${TRANSHIP_RDMA_OUT:-${CARGO_TARGET_DIR:-$root/target}/rdma}/$1
	rm -rf "$out"
	mkdir -p "$out"
}

# Starts a function as a job with a process group of its own, by which `cleanup` ends all of it. Sets `job`.
start() {
	set -m
	"$@" &
	job=$!
	set +m
}

# An unpinned TSC under emulation once ran ten times too fast; HPET is slower and never wrong.
clock() {
	local khz
	khz=$(dmesg 2>/dev/null | sed -n 's/.*tsc: Detected \([0-9]*\)\.\([0-9]\{3\}\) MHz.*/\1\2/p' | head -1) || true
	if [[ $khz ]]; then
		echo "tsc=reliable tsc_early_khz=$khz lpj=$((khz * 4))"
	else
		echo 'tsc=unstable clocksource=hpet'
	fi
}

# Boots initramfs $1 with folder $2 at /out and kernel words $3; the rest goes to QEMU. The status is the suite's.
boot() {
	local image=$1 out=$2 words=$3 status=0
	shift 3
	timeout --foreground -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=512 -cpu max -M pc \
		-smp "${TRANSHIP_RDMA_CPUS:-2}" -m "${TRANSHIP_RDMA_MIB:-2048}" \
		-nodefaults -display none -serial stdio -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=1 \
		-virtfs "local,path=$out,mount_tag=out,security_model=none,multidevs=remap" "$@" \
		-kernel "$kernel/vmlinux" -initrd "$image" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr log_buf_len=4M $(clock) $words" </dev/null || status=$?
	# The guest leaves by isa-debug-exit, which makes every status of its own odd.
	if ((status == 124 || status == 137)); then
		echo "rdma: the guest was ended at its limit of $limit s: raise it with TRANSHIP_RDMA_LIMIT or see what hangs"
		return 124
	fi
	((status % 2)) && return $((status >> 1))
	echo "rdma: the guest ended without a status (QEMU's was $status): its kernel panicked, see above"
	return 125
}
