import { conformance } from './conformance.ts'
import { loadContender } from './contenders.ts'
import { scenarios } from './scenarios.ts'

// One process measures one contender once: `child.js measure|conform <scenario> <contender> <ms>`. Its last line is JSON.
const [task, id, name = '', ms] = process.argv.slice(2)
const scenario = scenarios.find((candidate) => candidate.id === id)
if (!scenario) throw new Error(`There is no scenario "${id}".`)
const contender = await loadContender(name)

if (task === 'conform') {
  console.log(JSON.stringify({ cannot: await conformance(contender, scenario.needs) }))
} else {
  console.log(JSON.stringify(await scenario.measure(async (capacity) => contender.open(capacity), Number(ms))))
}
// Readers that wait for ever must not keep the process.
process.exit()
