# A Homebrew formula for the universal binary. `make macos` writes it to dist/ with the version
# and the checksum filled in, and SOFTNET_URL, where the archive will be published.
class Softnet < Formula
  desc "Small, very fast packet filter between a virtual machine and its host's network"
  url "@URL@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on macos: :ventura

  def install
    bin.install "softnet"
    pkgshare.install "softnet.entitlements", "softnet.sudoers"
  end

  # Homebrew may have signed the binary anew, without the entitlement, when it poured it.
  def post_install
    system "/usr/bin/codesign", "--force", "--sign", "-",
           "--entitlements", pkgshare/"softnet.entitlements", bin/"softnet"
  end

  def caveats
    <<~EOS
      macOS 26 and later: nothing more to do.
      macOS 13 to 15: softnet needs root. Tart offers to make it SUID root when it runs in a
      terminal; elsewhere see #{pkgshare}/softnet.sudoers.
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/softnet --version")
  end
end
