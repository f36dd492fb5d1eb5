# python-socks as requirements.lock has it, for a nixpkgs whose own is older than 3.0.
#
# Version and hash are the lock's: a test compares them. Left to be removed when nixpkgs has 3.0.
{
  lib,
  buildPythonPackage,
  fetchPypi,
  setuptools,
}:

buildPythonPackage rec {
  pname = "python-socks";
  version = "3.2.1";
  pyproject = true;

  src = fetchPypi {
    pname = "python_socks";
    inherit version;
    hash = "sha256-0hYYrmxnNNNXvoMmOzeRZm0Sr1lICs6PSPK1/MjtyYc=";
  };

  build-system = [ setuptools ];

  # Its tests bring up proxies of a package that is not in every nixpkgs; ours drive it through real ones, in CI.
  doCheck = false;
  pythonImportsCheck = [ "python_socks.async_.asyncio" ];

  meta = {
    description = "Proxy client (SOCKS 4, SOCKS 5, HTTP CONNECT)";
    homepage = "https://github.com/romis2012/python-socks";
    license = lib.licenses.asl20;
  };
}
