# noqa
import os, collections, time, json
import pytest
from hypothesis import given, settings, HealthCheck, seed, Phase
from tests.toolchain import test_fuzz as F
from tests.toolchain.test_fuzz import arena, stopped  # noqa
def test_stats(arena, capsys, monkeypatch):
    monkeypatch.chdir(arena)
    files = [p.relative_to(arena) for p in arena.rglob("*") if p.is_file()]
    contents = {p: (arena / p).read_bytes() for p in files}
    stats=collections.Counter(); times=collections.Counter(); found=[]; msgs=collections.Counter()
    real=F.run_command
    def spy(cmd):
        b=time.monotonic()
        c=real(cmd); times[cmd[0]]+=time.monotonic()-b
        stats[(cmd[0],c)]+=1
        return c
    monkeypatch.setattr(F,"run_command",spy)
    @seed(int(os.environ["SEED"]))
    @settings(max_examples=int(os.environ["N"]), database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(F.inputs(contents))
    def every(case):
        try: F.check(arena,capsys,case,contents)
        except BaseException as e:
            import traceback
            tb=traceback.extract_tb(e.__traceback__)[-1]
            key=(type(e).__name__, str(e)[:150], tb.filename.split("site-packages/")[-1][-60:], tb.lineno)
            if key not in msgs:
                found.append((key, str(case[0].file), case[2], case[3], case[1][:300000] if len(case[1])<5000 else (str(case[1][:200])), "".join(traceback.format_exception(e))[-3500:]))
                n=len(found); open(f"/tmp/hostile/found-{os.environ['SEED']}-{n}.bin","wb").write(case[1])
            msgs[key]+=1
    b=time.monotonic()
    every()
    with open(f"/tmp/hostile/stats-{os.environ['SEED']}.txt","w") as f:
        print(time.monotonic()-b, stats, times, file=f)
        for k,v in msgs.most_common(): print(v,k,file=f)
        for x in found: print("=====",*x[:4],repr(x[4])[:400],x[5],sep="\n",file=f)
