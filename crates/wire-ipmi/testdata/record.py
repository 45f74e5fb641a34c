#!/usr/bin/env python3
"""Records a conversation between a console and a BMC: record.py BMC_PORT FILE COMMAND...

Runs COMMAND with the word PORT replaced by the port of a relay on 127.0.0.1, passes datagrams on to
127.0.0.1:BMC_PORT and back, and writes each as a line of hexadecimal digits: ">" to the BMC, "<" from it.
"""
import select
import socket
import subprocess
import sys

bmc_port, path, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
front.bind(("127.0.0.1", 0))
back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
back.connect(("127.0.0.1", bmc_port))
port = str(front.getsockname()[1])
child = subprocess.Popen([port if word == "PORT" else word for word in command])
console = None
with open(path, "w") as out:
    while child.poll() is None:
        for sock in select.select([front, back], [], [], 0.05)[0]:
            if sock is front:
                data, console = front.recvfrom(2048)
                back.send(data)
                out.write("> " + data.hex() + "\n")
            else:
                data = back.recv(2048)
                front.sendto(data, console)
                out.write("< " + data.hex() + "\n")
sys.exit(child.returncode)
