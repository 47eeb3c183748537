"""An RTSP server that plays an H.264 file once to whoever asks, then ends.

Run it with the system's Python, which has ``gi``::

    /usr/bin/python3 tests/helpers/rtsp_server.py PORT FILE.mp4

Each of /line, /line1, /line2, ... is a stream of its own. Needs GStreamer's gst-rtsp-server
(Debian: gir1.2-gst-rtsp-server-1.0), whose licence is the LGPL: tests alone use it.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # gi wants the versions first

MOUNTS = ("/line", "/line1", "/line2")
PIPELINE = "( filesrc location={} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 )"

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
for mount in MOUNTS:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(sys.argv[2]))
    server.get_mount_points().add_factory(mount, factory)
if not server.attach(None):
    sys.exit(f"port {sys.argv[1]} cannot be had")
sys.stdout.write("ready\n")
sys.stdout.flush()
GLib.MainLoop().run()
