"""Forms in which credentials stand in settings and addresses, and credentials of any kind."""

from __future__ import annotations

from hypothesis import strategies as st

FORMS = (
    "rtsp://me:{}@10.0.0.5:554/line",
    "https://{}@mes/hook",
    "watch:ftp://me:{}@h",
    "ftp:/me:{}@h/folder",
    "rtsp//me:{}@10.0.0.5/line",
    "me:{}@10.0.0.5",
    "grpc://triton:8001/?key={}",
    "https://mes/hook?id=3&sig={}#x",
    "https://mes/hook?{}",
    "rtsp://10.0.0.5/user=me&password={}&channel=1",
    "rtspsrc location=rtsp://h user-id=me user-pw={} ! decodebin",
    'gst:rtspsrc user-pw="{}" ! decodebin',
    "gst:rtspsrc user-pw = (string){} ! decodebin",
    "Basic256Sha256,SignAndEncrypt,cert.pem,key.pem::{}",
    "Basic256Sha256,SignAndEncrypt,cert,key::{},server.pem",
    "PASSWORD={}",
    "api_key={}",
    '{{"token": "{}"}}',
)
"""Where credentials stand in addresses, pipelines and settings."""

BEGIN, END = "QX", "XQ"
SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9).map(
    lambda word: f"{BEGIN}{word}{END}"
)
"""With spaces, ``@``, quotes and whatever else a password may hold."""
