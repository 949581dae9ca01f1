"""Headless Chromium on the page of fifty parts, driven by its own protocol for debuggers.

chromium.py DIRECTORY URL [USER PASSWORD] [--OPTION...] loads URL, answers a proxy's question for a login
once, and ends well when the page says that all its parts are the same. Its profile is made in DIRECTORY.
"""

import json
import os
import subprocess
import sys
import time

directory, url, *rest = sys.argv[1:]
login = [word for word in rest if not word.startswith("--")]
options = [word for word in rest if word.startswith("--")]

# Nothing that Chromium does by itself goes through the proxy, and what the page asks for stays what it is.
QUIET = """--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync
--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,LocalNetworkAccessChecks""".split()

# Chromium reads commands at descriptor 3 and writes answers and events to 4, each ended by a zero.
commands_end, commands = os.pipe()
answers, answers_end = os.pipe()
shell = 'exec "$@" 3<&%d 4>&%d' % (commands_end, answers_end)
profile = f"{directory}/chromium"
chromium = subprocess.Popen(
    ["bash", "-c", shell, "bash", "chromium", *QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    + options,
    pass_fds=[commands_end, answers_end],
    env={**os.environ, "HOME": directory},
    stderr=subprocess.DEVNULL,
)
os.close(answers_end)
number = 0
pending = b""
answered = False


def tell(method, session=None, **parameters):
    global number
    number += 1
    message = {"id": number, "method": method, "params": parameters}
    if session:
        message["sessionId"] = session
    os.write(commands, json.dumps(message).encode() + b"\0")
    return number


def hear():
    """The next message."""
    global pending
    while b"\0" not in pending:
        some = os.read(answers, 1 << 16)
        if not some:
            sys.exit("Chromium has ended")
        pending += some
    message, _, pending = pending.partition(b"\0")
    return json.loads(message)


def ask(method, session=None, **parameters):
    """What the command gives back; what is asked meanwhile is answered."""
    asked = tell(method, session, **parameters)
    while True:
        message = hear()
        if message.get("id") == asked:
            if "error" in message:
                sys.exit(f"{method}: {message['error']}")
            return message["result"]
        answer(message)


def answer(event):
    global answered
    parameters, session = event.get("params", {}), event.get("sessionId")
    if event.get("method") == "Fetch.requestPaused":
        tell("Fetch.continueRequest", session, requestId=parameters["requestId"])
    elif event.get("method") == "Fetch.authRequired":
        question = parameters["authChallenge"]
        print(f"asked for a login by the {question['source']}: {question['scheme']} {question['realm']}", flush=True)
        if question["source"] != "Proxy" or answered or not login:
            chromium.kill()
            sys.exit("asked for a login that it cannot give")
        answered = True
        given = {"response": "ProvideCredentials", "username": login[0], "password": login[1]}
        tell("Fetch.continueWithAuth", session, requestId=parameters["requestId"], authChallengeResponse=given)


target = ask("Target.createTarget", url="about:blank")["targetId"]
page = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
ask("Fetch.enable", page, handleAuthRequests=True)
tell("Page.navigate", page, url=url)
said, end = "", time.monotonic() + 40
while not said and time.monotonic() < end:
    time.sleep(0.1)
    look = "document.getElementById('same')?.textContent ?? 'no page'"
    found = ask("Runtime.evaluate", page, expression=look)["result"].get("value", "")
    said = "" if found in ("not finished", "no page") else found
print(said or "the page has not finished")
tell("Browser.close")
chromium.wait(10)
sys.exit(said != "50 parts are the same")
