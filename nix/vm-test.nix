# The service in virtual machines of its own: `nix build .#checks.x86_64-linux.nixos`.
#
# No provider is reached, and none is needed: a request with the right token gets as far as the login that is not
# there, which is a 503, and one without it is a 401.
{
  name = "ai-mux";

  nodes.plain = {
    services.ai-mux = {
      enable = true;
      openFirewall = true;
      settings = {
        listen = ":8080";
        state_dir = "/var/lib/ai-mux";
        providers = [
          "claude"
          "chatgpt"
        ];
        users = [
          {
            name = "alice";
            token = "alice-secret-token-at-least-16";
          }
        ];
      };
    };
  };

  # A port that only root may open, and a token that only root may read.
  nodes.guarded =
    { pkgs, ... }:
    {
      services.ai-mux = {
        enable = true;
        settings = {
          listen = ":80";
          providers = [ "claude" ];
          users = [
            {
              name = "bob";
              token_file = "/etc/bob.token";
            }
          ];
        };
      };
      environment.etc."bob.token" = {
        source = pkgs.writeText "token" "bobs-made-up-token-of-a-test";
        mode = "0400";
      };
    };

  testScript = ''
    def status(machine, port, token=None):
        said = f"-H 'Authorization: Bearer {token}'" if token else ""
        url = f"http://localhost:{port}/claude/v1/models"
        return machine.succeed(f"curl -s -o /dev/null -w '%{{http_code}}' {said} {url}").strip()

    start_all()

    with subtest("The service starts, lets its users in and nobody else"):
        plain.wait_for_unit("ai-mux.service")
        plain.wait_for_open_port(8080)
        assert plain.succeed("curl -sf http://localhost:8080/healthz").strip() == "ok"
        assert status(plain, 8080) == "401"
        assert status(plain, 8080, "not-the-token-of-anybody") == "401"
        assert status(plain, 8080, "alice-secret-token-at-least-16") == "503"

    with subtest("It reloads, and goes on as the same process"):
        before = plain.succeed("systemctl show --property MainPID --value ai-mux.service")
        plain.succeed("systemctl reload ai-mux.service")
        plain.wait_until_succeeds("journalctl -u ai-mux.service | grep -q config.reloaded")
        assert plain.succeed("systemctl show --property MainPID --value ai-mux.service") == before
        assert status(plain, 8080, "alice-secret-token-at-least-16") == "503"

    with subtest("What it keeps is its own user's alone"):
        assert plain.succeed("stat -c '%U %a' /var/lib/ai-mux").strip() == "ai-mux 700"
        plain.succeed("systemctl stop ai-mux.service")
        plain.wait_until_fails("curl -s http://localhost:8080/healthz")

    with subtest("A low port, and a token by reference"):
        guarded.wait_for_unit("ai-mux.service")
        guarded.wait_for_open_port(80)
        assert status(guarded, 80) == "401"
        assert status(guarded, 80, "bobs-made-up-token-of-a-test") == "503"
  '';
}
