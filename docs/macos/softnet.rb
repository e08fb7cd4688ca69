# A Homebrew formula for the universal binary. `make macos` writes it to dist/ and fills in the
# version, the checksum, and SOFTNET_URL, where the archive will be published.
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

  # If Homebrew has changed the binary, it signs it again, without the entitlement.
  def post_install
    entitlements = Utils.popen_read("/usr/bin/codesign", "--display", "--entitlements", "-", bin/"softnet")
    return if entitlements.include?("com.apple.security.virtualization")

    system "/usr/bin/codesign", "--force", "--sign", "-",
           "--entitlements", pkgshare/"softnet.entitlements", bin/"softnet"
  end

  def caveats
    <<~EOS
      macOS 26 and later: nothing more to do.
      macOS 13 to 15: softnet needs root. Tart offers to make it SUID root when it runs in a
      terminal, on macOS 26 too. But you own Homebrew's folders, and anyone who can write to the
      folder of a SUID program can become root. So install a copy where only root can write:
        sudo install -d -o root -g wheel -m 755 /usr/local/libexec
        sudo install -o root -g wheel -m 4755 #{opt_bin}/softnet /usr/local/libexec/softnet
      Put /usr/local/libexec before #{HOMEBREW_PREFIX}/bin on PATH, and repeat this after each
      upgrade. If Tart runs without a terminal, see also #{opt_pkgshare}/softnet.sudoers.
      A VM gets no address if the application firewall blocks requests to
      /usr/libexec/bootpd: add that in System Settings, Network, Firewall, Options.
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/softnet --version")
  end
end
