import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cleanName, parseDiskStats, parseNetDev, parseProcessStat } from '../../src/host/parse.ts'

const diskstats = `   7       0 loop0 12 0 24 0 0 0 0 0 0 0 0 0 0 0 0 0 0
   1       0 ram0 12 0 24 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 91674 13575 5029570 34798 25405 80692 7320920 13833 0 8012 51009 34954 60 1950696 2354 859 23
 259       0 nvme0n1 10 0 80 1 20 0 160 2 0 0 0
 253       0 zram0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
   8       0 sda broken
`

test('disks are counted in reads, writes and bytes; unused ones and images of others are left out', () => {
  assert.deepEqual(
    [...parseDiskStats(diskstats)],
    [
      ['vda', { reads: 91_674, writes: 25_405, readBytes: 5_029_570 * 512, writtenBytes: 7_320_920 * 512 }],
      ['nvme0n1', { reads: 10, writes: 20, readBytes: 40_960, writtenBytes: 81_920 }],
    ],
  )
  assert.equal(parseDiskStats('').size, 0)
})

const netDev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1850297     250    0    0    0     0          0         0  1850297     250    0    0    0     0       0          0
  ifb0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
eth0:1:941676764   22821    0    0    0     0          0         0  1373016   13625    0    0    0     0       0          0
 eth1: 5
`

test('network interfaces are counted in bytes, with names that hold a colon or touch their counters', () => {
  assert.deepEqual(
    [...parseNetDev(netDev)],
    [
      ['lo', { rxBytes: 1_850_297, txBytes: 1_850_297 }],
      ['eth0:1', { rxBytes: 941_676_764, txBytes: 1_373_016 }],
    ],
  )
  assert.equal(parseNetDev('').size, 0)
})

test('a process is known by number, name and parent, whatever it calls itself', () => {
  assert.deepEqual(parseProcessStat('1 (init) S 0 1 1 0 -1 4194560'), { pid: 1, name: 'init', parent: 0 })
  assert.deepEqual(parseProcessStat('42 (a) S 9 (b c) R 7 1 1'), { pid: 42, name: 'a) S 9 (b c', parent: 7 })
  assert.deepEqual(parseProcessStat('42 (x\ny\u001b) R 7 1 1'), { pid: 42, name: 'x\ufffdy\ufffd', parent: 7 })
  for (const text of ['', '1', '1 (', '(x) S 1', '1 (x', 'x (x) S 1', '1 (x) S', ') 1 (x']) {
    assert.equal(parseProcessStat(text), undefined, text)
  }
})

test('names are made fit for events', () => {
  assert.equal(cleanName('a\u0000b\ud800'), 'a\ufffdb\ufffd')
  assert.equal(cleanName('x'.repeat(1000)).length, 255)
})

test('a name that is cut within a pair of surrogates keeps no half of it', () => {
  assert.equal(cleanName(`${'n'.repeat(254)}😀`), `${'n'.repeat(254)}\ufffd`)
  assert.equal(cleanName(`${'n'.repeat(253)}😀`), `${'n'.repeat(253)}😀`)
})
