#!/bin/sh
# Run in a build stage: install the package itself, then take away what no command needs.
set -eu
venv=/opt/neurostorm/venv
"$venv/bin/pip" install --no-cache-dir --no-deps --no-build-isolation --no-index /src
"$venv/bin/pip" check
"$venv/bin/pip" uninstall --quiet --yes pip
cd "$venv"/lib/python3*/site-packages
find . -name tests -type d -prune -exec rm -rf {} +
rm -rf torch/test torch/include torch/bin/protoc* torch/bin/test_* torch/bin/*Test pyarrow/include pyarrow/src \
    plotly/labextension "$venv"/share/jupyter
chmod -R a+rX /opt/neurostorm
