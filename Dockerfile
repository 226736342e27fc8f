# The page on the CPU:
#   docker build -t cartoon-diffusion . && docker run -p 7860:7860 -v cartoon-runs:/app/runs cartoon-diffusion
FROM python:3.12-slim

WORKDIR /app
RUN useradd --create-home --uid 1000 user && mkdir runs && chown user /app runs

# From PyTorch's own index: the build without CUDA, many times smaller.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
    torch==2.11.0 torchvision==0.26.0
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

COPY app.py LICENSE ./
COPY checkpoints checkpoints
COPY demo demo
COPY diffusion diffusion

USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]
# Python as the first process ignores SIGTERM; this is Ctrl-C.
STOPSIGNAL SIGINT
CMD ["python", "app.py"]
