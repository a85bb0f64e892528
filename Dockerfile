# mri-score with everything that it needs at run time; starts the server for scanners. docs/container.md says how.
FROM python:3.12.12-slim-bookworm

# The index of torch's wheels without CUDA, 200 MB instead of 3 GB; for a GPU: https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# The home folder of a user without a name is /, which cannot be written: caches go to /tmp.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba

WORKDIR /opt/mri_score

COPY scripts/constraints.txt scripts/constraints.txt
RUN python -m pip install --index-url "$TORCH_INDEX" --constraint scripts/constraints.txt torch

COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY mri_score mri_score
COPY cli cli
COPY configs configs
COPY parameters parameters
RUN python -m pip install --constraint scripts/constraints.txt ".[nifti,dicom,mrd]" && rm -rf build ./*.egg-info

# The installed package, not this folder, is what runs.
WORKDIR /tmp
USER 10001:10001
EXPOSE 9002
HEALTHCHECK --interval=60s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9002), 4).close()"]
ENTRYPOINT ["mri-score"]
CMD ["serve", "--host", "0.0.0.0"]
