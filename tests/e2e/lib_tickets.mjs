// lib_tickets.mjs: an issuer of tickets: keys of its own, JWTs good and bad, all of which it remembers, so that a test can look for
// them in a log.

import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { assert, shorten, tempDir } from './lib.mjs';

export const now = () => Math.floor(Date.now() / 1000);

const part = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

export class Issuer {
    constructor() {
        this.folder = tempDir();
        this.secret = crypto.randomBytes(32).toString('base64');
        this.rs = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
        this.es = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
        this.other = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
        this.made = new Set();
        this.files = {};
        for (const kid of ['rs', 'es']) {
            this.files[kid] = path.join(this.folder, `${kid}.pem`);
            fs.writeFileSync(this.files[kid], this.pem(kid));
        }
    }

    pem(kid) {
        return this[kid].publicKey.export({ type: 'spki', format: 'pem' });
    }

    // For -o: three keys, `hs` first.
    get keys() {
        return {
            'key.hs.secret': `base64:${this.secret}`,
            'key.rs.alg': 'RS256',
            'key.rs.file': this.files.rs,
            'key.es.alg': 'ES256',
            'key.es.file': this.files.es,
        };
    }

    signature(alg, key, text) {
        if (alg === 'none') return '';
        if (alg === 'HS256') return crypto.createHmac('sha256', key).update(text).digest('base64url');
        const options = alg === 'ES256' ? { key, dsaEncoding: 'ieee-p1363' } : key;
        return crypto.sign('sha256', Buffer.from(text), options).toString('base64url');
    }

    // A token of these very parts, signed by `sign` with a key.
    forge(header, claims, sign, key) {
        const text = `${part(header)}.${part(claims)}`;
        return this.remember(`${text}.${this.signature(sign, key, text)}`);
    }

    remember(token) {
        this.made.add(token);
        return token;
    }

    // A good one, unless the claims say otherwise; it lives for five minutes.
    ticket(claims = {}, alg = 'HS256', header = {}) {
        const kid = alg.slice(0, 2).toLowerCase();
        const key = alg === 'HS256' ? Buffer.from(this.secret, 'base64') : this[kid].privateKey;
        const body = typeof claims === 'string' ? claims : { sub: 'alice', exp: now() + 300, jti: crypto.randomUUID(), ...claims };
        return this.forge({ alg, kid, typ: 'JWT', ...header }, body, alg, key);
    }

    // No line of a log holds any ticket, nor a part of one that is worth anything: its claims or its signature.
    checkLog(log, what = 'the log') {
        for (const token of this.made) {
            const pieces = token.split('.').length === 3 ? [token, ...token.split('.').slice(1)] : [token];
            for (const piece of pieces)
                assert(piece.length < 16 || !log.includes(piece), () => `${what} holds a ticket: ${shorten(piece, 60)}`);
        }
    }
}
