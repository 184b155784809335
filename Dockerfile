# `ms-ocr serve` on CPUs: docker build -t ms-ocr . && docker run --rm -p 127.0.0.1:8000:8000 ms-ocr
FROM python:3.12-slim-bookworm

# What opencv-python loads; without versions, since Debian keeps the newest alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch without CUDA, before the package asks for any.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.10"

# serve alone leaves the page reader out.
ARG EXTRAS=serve,page,onnx
COPY pyproject.toml setup.py README.md LICENSE NOTICE /source/
COPY ms_ocr_handwritten /source/ms_ocr_handwritten
RUN pip install --no-cache-dir "/source[$EXTRAS]" && rm -rf /source

RUN useradd --create-home --uid 10001 reader
USER 10001
WORKDIR /home/reader

EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
CMD ["ms-ocr", "serve", "--host", "0.0.0.0"]
