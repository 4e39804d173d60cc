// lib_follow.mjs: viewers by the thousand that come back and resume: halley-bench follow, a process of its own.

import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';

import { assert, atEnd, halleyBin, pause, slowness } from './lib.mjs';

export class Follow {
    // {ports, room, viewers, slow (percent), stallMs, reportMs, prefix (command before the viewers')}
    static start({ ports, room, viewers, slow = 0, stallMs = 3000, reportMs = 50, prefix = [] }) {
        const self = new Follow();
        const urls = ports.flatMap((port) => ['--url', `ws://127.0.0.1:${port}/ws`]);
        const args = ['--room', room, '--viewers', viewers, '--slow', slow, '--stall-ms', stallMs, '--report-ms', reportMs];
        const command = [...prefix, path.join(path.dirname(halleyBin), 'halley-bench'), 'follow', ...urls, ...args];
        self.child = spawn(command[0], command.slice(1), {
            stdio: ['ignore', 'pipe', 'inherit'],
        });
        self.exit = new Promise((resolve) => self.child.on('exit', (code, signal) => resolve(code ?? signal)));
        self.lines = 0;
        readline.createInterface({ input: self.child.stdout }).on('line', (line) => {
            self.state = JSON.parse(line);
            self.lines++;
        });
        self.undo = atEnd(() => self.child.kill('SIGKILL'));
        return self;
    }

    // Waits for a report, of which the test says yes.
    async until(test, what, ms) {
        const end = Date.now() + ms * slowness;
        for (let seen = -1; ; ) {
            if (this.lines !== seen && this.state && test(this.state)) return this.state;
            seen = this.lines;
            assert(this.child.exitCode === null, `the viewers ended with ${this.child.exitCode} before: ${what}`);
            assert(Date.now() < end, `${what}: not so within ${ms * slowness} ms: ${JSON.stringify(this.state)}`);
            await pause(5);
        }
    }

    // Everybody is in, and each lane stands at the id given: {h: id, n: id}.
    current(last) {
        const lanes = Object.values(this.state.lanes);
        return (
            this.state.joined === this.state.viewers &&
            Object.values(last).every((id) => lanes.some((lane) => lane.id === id && lane.viewers === this.state.viewers))
        );
    }

    hangUp() {
        this.child.kill('SIGUSR1');
    }

    comeBack() {
        this.child.kill('SIGUSR2');
    }

    // Resolves with the exit code; the last report is in state.
    async stop() {
        this.child.kill('SIGTERM');
        const code = await this.exit;
        await this.undo();
        return code;
    }
}
