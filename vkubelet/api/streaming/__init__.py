"""The kubelet's streaming endpoints: exec, attach, run and portForward, over SPDY/3.1 and WebSocket.

``routes`` is the door to aiohttp. Below it, ``remotecommand`` and ``portforward`` know what the streams mean, ``spdy``,
``spdyserver`` and ``websocket`` how they travel; neither knows the other.
"""
