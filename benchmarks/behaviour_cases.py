"""The matrix of benchmarks/behaviour.py: models, data and commands, all from fixed seeds."""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

FREE = {"h": 32, "w": 32}  # free dimensions of the data; others are 1
REAL = ("example", "det", "cls")
FROM_PICTURES = ("conv", "conv@half", "wide", "offset", "classifier", "nhwc", "gray", "swish", "bytes", "qdq")
FROM_ARRAYS = ("everything", "chain", "layernorm", "mixed", "pair", "lstm", "matmul", "attention", "sequence", "vector", "branch")

# Inputs => outputs <weights, random where they have no value> { nodes }, as onnx.parser reads them
MODELS = """\
conv (float[N,3,16,16] x) => (float[N,4,16,16] y) <float[16,3,3,3] w1, float[16] b1, float[16,1,3,3] w2, float[16] b2, float[4,16,1,1] w3,
  float[4] b3> { [stem] c1=Conv<pads=[1,1,1,1]>(x,w1,b1) [stem_relu] r1=Relu(c1) [depthwise] c2=Conv<group=16,pads=[1,1,1,1]>(r1,w2,b2)
  [depthwise_relu] r2=Relu(c2) [head] y=Conv(r2,w3,b3) }
wide (float[N,3,64,64] x) => (float[N,8,32,32] y) <float[32,3,3,3] w1, float[32] b1, float[32] g, float[32] o, float[32] m,
  float[32] variance, float[64,32,3,3] uneven, float[64,64,3,3] w3, float[64] b3, float[8,64,1,1] w4> {
  [stem] c1=Conv<pads=[1,1,1,1],strides=[2,2]>(x,w1,b1) [norm] n1=BatchNormalization(c1,g,o,m,variance) [swish] h1=HardSwish(n1)
  [first] c2=Conv<pads=[1,1,1,1]>(h1,uneven) [first_relu] r2=Relu(c2) [second] c3=Conv<pads=[1,1,1,1]>(r2,w3,b3) [shortcut] a=Add(c3,r2)
  [second_relu] r3=Relu(a) [head] y=Conv(r3,w4) }
everything (float[n,24,16,16] x) => (float[n,24,16,16] y) <float[24,24,1,1] w, float[24,24,3,3] uneven, float[24] b, float[24,24,3,3] w2,
  float[24,1,1] offsets, float[24,24,1,1] w3, float low={-3.0}, float high={3.0}, float up={100000.0}, float down={0.00001}> {
  [hostile] h=Conv(x,w) [clip] c=Clip(x,low,high) [first] f=Conv<pads=[1,1,1,1]>(c,uneven,b) [relu] r=Relu(f)
  [second] s=Conv<pads=[1,1,1,1]>(r,w2) [offset] o=Add(s,offsets) [third] t=Conv(o,w3) [enlarge] big=Mul(t,up) [reduce] z=Mul(big,down)
  [sum] y=Add(h,z) }
offset (float[1,3,16,16] x) => (float[1,4,16,16] y) <float[8,3,3,3] w1, float far={2000.0}, float[8,8,3,3] w2, float[4,8,1,1] w3> {
  [stem] c=Conv<pads=[1,1,1,1]>(x,w1) [away] a=Add(c,far) [back] b=Sub(a,far) [body] d=Conv<pads=[1,1,1,1]>(b,w2) [body_relu] r=Relu(d)
  [head] y=Conv(r,w3) }
classifier (float[N,3,32,32] x) => (float[N,10] y) <float[16,3,3,3] w1, float[32,16,3,3] w2, float[10,32] w3, float[10] b3> {
  [a] c1=Conv<strides=[2,2]>(x,w1) [b] r1=Relu(c1) [c] c2=Conv<strides=[2,2]>(r1,w2) [d] r2=Relu(c2) [pool] g=GlobalAveragePool(r2)
  [flat] f=Flatten(g) [gemm] z=Gemm<transB=1>(f,w3,b3) [softmax] y=Softmax(z) }
nhwc (float[N,16,16,3] x) => (float[N,16,16,8] y) <float[8,3,3,3] w> { [in] t=Transpose<perm=[0,3,1,2]>(x) [c] c=Conv<pads=[1,1,1,1]>(t,w)
  [out] y=Transpose<perm=[0,2,3,1]>(c) }
gray (float[N,1,16,16] x) => (float[N,8,33,33] y) <float[1,8,3,3] w> { [up] y=ConvTranspose<strides=[2,2]>(x,w) }
swish (float[N,3,16,16] x) => (float[N,8,16,16] y) <float[16,3,3,3] w1, float[8,16,1,1] w2, float three={3.0}, float low={0.0},
  float six={6.0}> { [c1] c=Conv<pads=[1,1,1,1]>(x,w1) [p] p=Add(c,three) [k] k=Clip(p,low,six) [m] m=Mul(c,k) [d] d=Div(m,six)
  [c2] y=Conv(d,w2) }
bytes (uint8[N,3,16,16] x) => (float[N,8,16,16] y) <float[8,3,3,3] w, float k={0.0078}> { [cast] f=Cast<to=1>(x) [scale] s=Mul(f,k)
  [c] y=Conv<pads=[1,1,1,1]>(s,w) }
qdq (float[N,3,16,16] x) => (float[N,8,16,16] y) <float xs={0.01}, int8 zero={0}, int8[8,3,3,3] integers, float ws={0.02}> {
  q=QuantizeLinear(x,xs,zero) d=DequantizeLinear(q,xs,zero) e=DequantizeLinear(integers,ws,zero) [c] y=Conv<pads=[1,1,1,1]>(d,e) }
chain (float[1,8] x) => (float[1,8] y) <float f0={300.0}, float f1={400.0}, float f2={0.001}, float f3={0.01}> { [mul0] a=Mul(x,f0)
  [mul1] b=Mul(a,f1) [mul2] c=Mul(b,f2) [mul3] y=Mul(c,f3) }
layernorm (float[N,8] x) => (float[N,8] y) <float[8,8] w, float two={2.0}, float eps={0.00001}> { [project] m=MatMul(x,w)
  [mean] u=ReduceMean<axes=[-1]>(m) [center] d=Sub(m,u) [square] s=Pow(d,two) [variance] v=ReduceMean<axes=[-1]>(s) [epsilon] e=Add(v,eps)
  [root] r=Sqrt(e) [divide] y=Div(d,r) }
mixed (int64[n,5] ids, bool[n,5,1] mask, float[8] bias) => (float[n,5,8] y, float total) <float[10,8] table, float[8,8] w,
  float zero={0.0}> { [embed] e=Gather(table,ids) [project] m=MatMul(e,w) [select] z=Where(mask,m,zero) [join] y=Add(z,bias)
  [sum] total=ReduceSum<keepdims=0>(y) }
pair (float[N,3,8,8] a, float[N,4,8,8] b) => (float[N,8,8,8] y) <float[16,3,3,3] w1, float[16,4,3,3] w2, float[8,32,1,1] w3> {
  [left] c=Conv<pads=[1,1,1,1]>(a,w1) [right] d=Conv<pads=[1,1,1,1]>(b,w2) [join] j=Concat<axis=1>(c,d) [relu] r=Relu(j)
  [head] y=Conv(r,w3) }
free (float[n,3,h,w] x) => (float[n,4,h,w] y) <float[4,3,3,3] w1> { [c] c=Conv<pads=[1,1,1,1]>(x,w1) [r] y=Relu(c) }
lstm (float[6,1,8] x) => (float[6,1,4] y) <float[1,64,8] w, float[1,64,16] r, float[1,128] b, int64[1] one={1}, float[16,4] v> {
  [lstm] h=LSTM<hidden_size=16>(x,w,r,b) [squeeze] s=Squeeze(h,one) [out] y=MatMul(s,v) }
matmul (float[n,32] x) => (float[n,64] y) <float[32,64] w1, float[64,64] w2> { [one] a=MatMul(x,w1) b=Relu(a) [two] y=MatMul(b,w2) }
attention (float[n,6,16] x) => (float[n,6,16] y) <float[16,16] wq, float[16,16] wk, float[16,16] wv, float[16,16] wo> { [q] q=MatMul(x,wq)
  [k] k=MatMul(x,wk) [v] v=MatMul(x,wv) [t] t=Transpose<perm=[0,2,1]>(k) [scores] s=MatMul(q,t) [soft] p=Softmax<axis=-1>(s)
  [values] o=MatMul(p,v) [out] y=MatMul(o,wo) }
sequence (float[n,4,32] x) => (float[n,8,32] y) <float[8,4,3] w> { [c] c=Conv<pads=[1,1]>(x,w) [r] y=Relu(c) }
vector (float[16] x) => (float[4] y) <float[16,4] w> { [m] y=MatMul(x,w) }
branch (float[1,8] x) => (float[1,8] y) <float[8,8] w, float zero={0.0}> { [m] m=MatMul(x,w) [s] s=ReduceSum<keepdims=0>(m)
  [g] g=Greater(s,zero) [if] y=If(g)<then_branch=yes()=>(float[1,8] a){a=Relu(m)}, else_branch=no()=>(float[1,8] b){b=Neg(m)}> }
constant (float[1,4] x) => (float[1,4] y) <float zero={0.0}, float one={1.0}> { m=Mul(x,zero) y=Add(m,one) }
relu (float[1,3,16,16] x) => (float[1,3,16,16] y) { y=Relu(x) }
mystery (float[1,4] x) => (float[1,4] y) { a=Relu(x) [the_odd_one] y=acme.Mystery(a) }
"""

SHORT = {  # in CASES, in this order
    "FAIL": "TEST --metric noise --max-accuracy-drop 0 --layer-precisions *:fp16",  # FP16 always differs a little
    "TEST": "--test-image test.png",
    "CACHE": "--calibration-cache c.cache --save-onnx s.onnx",
    "QUICK": "--precision int8 --calibration-dir pictures --quantization-effort fast --max-accuracy-drop 100",
    "INT8": "--precision int8 --calibration-dir pictures --max-accuracy-drop 20",
    "NOISE": "ARRAYS --metric noise --max-accuracy-drop 0.003",
    "ARRAYS": "--precision int8 --calibration-dir arrays",
    "LIMIT": "--metric noise --max-accuracy-drop 0.00001",
    "SHARE": "--precision int8 --calibration-dir pictures --max-accuracy-drop 20 --layer-precisions head:fp16 --min-int8-share",
    "HEAD": "TRT-100600-EntropyCalibration2\\n",
}
# Title | model[@change] | commands, without --onnx net.onnx; those behind ! are the shell's
CASES = """\
help | conv | --help
flags wrong | conv | --presicion fp16 ;; --precision int4 ;; --opt-shapes x:1xfoo ;; --metric iou ;; --max-batch-size 10995116277
flags contradict | conv | --disable-strict-types --layer-precisions a:fp32 ;; --save-onnx net.engine ;; --no-validate --compare
flags odd | conv | --validate-only e --dry-run ;; --inspect e --tf32 ;; --mean 1 2 ;; --precision fp32 --layer-precisions a:fp32
defaults | conv | ;; --metric argmax
messages | conv | --json - TEST ;; --quiet TEST ;; --verbose TEST
output and workspace | conv | -o deep.engine --workspace-size 0.5 --tf32 --precision fp32
batch | wide | --max-batch-size 4 INT8 --save-onnx s.onnx TEST
half refused | conv@half | --precision fp32
external data | conv@external | TEST --save-onnx s.onnx --report r.html ;; ! rm net.data ;; TEST
old opset | conv@11 | INT8 --save-onnx s.onnx
layer precisions | wide | TEST --layer-precisions *:fp16 first*:fp32 --precision-constraints obey --save-onnx s.onnx
layer precisions int8 | wide | INT8 --layer-precisions second:fp16 head:fp32 --save-onnx s.onnx
held for range | chain | --layer-precisions *:fp32 ;; --test-image x.npz --disable-strict-types
held for accuracy | offset | TEST LIMIT --save-onnx s.onnx --report r.html
held by nothing | offset | TEST --precision-constraints none --save-onnx s.onnx ;; TEST --disable-strict-types LIMIT
io types | conv | TEST --io-types x:fp16 y:fp16 --save-onnx s.onnx ;; --io-types z:fp16
io types int8 | wide | INT8 --io-types x:fp16 --save-onnx s.onnx
strongly typed | conv | TEST --strongly-typed
int8 share | conv | SHARE 60 ;; SHARE 75 --keep-failed
int8 qdq | wide | INT8 --quantization qdq --save-onnx s.onnx ;; INT8 --quantization calibrator
int8 few samples | wide | INT8 --calibration-samples 3 --save-onnx s.onnx --no-baseline
int8 refused | relu | --precision int8 ;; INT8
int8 drop small | everything | NOISE --max-accuracy-drop 0.002 --save-onnx s.onnx --report r.html --validation-dir arrays
int8 drop unreachable | classifier | INT8 --max-accuracy-drop 0 --metric noise --keep-failed --report r.html
compare | wide | --compare INT8 TEST --report r.html
compare fp16 | conv | --compare TEST --calibration-dir pictures ;; --compare
best | conv | --precision best TEST
nothing checked | conv | --no-validate ;; --require-execution
dry run | conv | INT8 --dry-run --report r.html
validate only | conv | --precision fp32 ;; --validate-only net.engine TEST
report | wide | INT8 TEST --report r.html --validation-dir valid ;; --report nowhere/r.html
failed | conv | ! echo old > net.engine ;; FAIL ;; FAIL --keep-failed --report r.html
validation folder | conv | --validation-dir valid TEST
validation folder int8 | classifier | INT8 --validation-dir valid
validation arrays | matmul | --validation-dir arrays
metrics | conv | TEST --metric argmax ;; TEST --metric mask:.50 ;; TEST --metric cosine ;; TEST --metric noise ;; TEST --metric top1
metric top1 | classifier | TEST --metric top1
metric of outputs | mixed | --test-image x.npz --metric noise ;; --test-image x.npz --metric top1
output constant | constant |
letterbox | conv | INT8 TEST --resize letterbox --color bgr --mean 0.485 0.456 0.406 --std 0.229,0.224,0.225
crop | nhwc | INT8 TEST --resize crop --input-range 255 --mean 127.5 --std 64 --save-onnx s.onnx
gpu archs | conv | --gpu-arch sm_89 ;; --gpu-arch 8.9,120 ;; --gpu-arch 75
refused on RTX | conv | --plugins none.so ;; --dla-core 0 ;; --version-compatible ;; --hardware-compatibility-level ampere_plus
no effect on RTX | conv | --timing-cache t.cache --tactic-sources CUBLAS --builder-optimization-level 2 ;; --disable-tactic-sources
backends | conv | --backend tensorrt ;; --backend tensorrt-rtx --timing-cache none
shapes | free | --opt-shapes x:1x3x24x32 --max-shapes x:2x3x64x64 --min-shapes 1x3x8x8 TEST --save-onnx s.onnx
shapes int8 | free | INT8 --opt-shapes x:2x3x32x32 --max-shapes 4x3x32x32 --save-onnx s.onnx
shapes wrong | free | ;; --min-shapes x:1x3x64x64 --max-shapes x:1x3x32x32 ;; --opt-shapes y:1x3x64x64
shapes fixed | conv | --opt-shapes x:1x3x64x64
cache | conv | INT8 CACHE ;; ! rm -r pictures ;; --precision int8 --max-accuracy-drop 20 CACHE
cache of everything | everything | NOISE CACHE ;; NOISE CACHE ;; ! rm -r arrays ;; --precision int8 --metric noise CACHE
cache, another limit | everything | NOISE CACHE ;; NOISE CACHE --max-accuracy-drop 5 ;; NOISE CACHE --quantization-effort fast
cache, fit damaged | conv | INT8 CACHE ;; ! echo junk > c.cache.fit.npz ;; INT8 CACHE ;; ! rm c.cache.fit.npz ;; INT8 CACHE
cache stale | conv | QUICK CACHE ;; ! cp test.png pictures/9.png ;; QUICK CACHE ;; QUICK CACHE --accept-stale-cache
cache, another method | conv | QUICK CACHE --calibration-method minmax ;; QUICK CACHE --calibration-method mse
cache corrupt | conv | ! echo hello > c.cache ;; QUICK CACHE ;; ! printf "HEADx: 7fc00000\\n" > c.cache ;; --precision int8 CACHE
cache of TensorRT | conv | ! printf "HEADx: 3c010a14\\nr1: 3c010a14\\nr2: 3c010a14\\n" > c.cache ;; --precision int8 CACHE ;; QUICK CACHE
cache of another model | conv | ! printf "HEADother: 3c010a14\\n" > c.cache ;; --precision int8 CACHE
unchanged | conv | TEST --skip-unchanged ;; TEST --skip-unchanged ;; ! cp pictures/1.png test.png ;; TEST --skip-unchanged --dry-run
unchanged int8 | conv | QUICK CACHE --skip-unchanged ;; QUICK CACHE --skip-unchanged --json - ;; QUICK CACHE --skip-unchanged --tf32
unchanged, engine altered | conv | TEST ;; ! echo more >> net.engine ;; TEST --skip-unchanged ;; --no-validate --skip-unchanged
inspect | wide | INT8 --gpu-arch 89 ;; --inspect net.engine ;; --inspect net.engine --json - ;; ! rm *.json ;; --inspect net.engine
inspect junk | conv | --no-validate ;; ! truncate -s 5000 net.engine ;; --inspect net.engine ;; --inspect net.onnx ;; --inspect none
file truncated | conv | ! truncate -s -100 net.onnx ;; TEST --report r.html ;; ! truncate -s 0 net.onnx ;; TEST ;; ! rm net.onnx ;; TEST
file junk | conv | ! echo junk > net.onnx ;; TEST ;; ! echo "<!DOCTYPE html><html>404" > net.onnx ;; TEST
file of Git LFS | conv | ! echo "version https://git-lfs.github.com/spec/v1" > net.onnx ;; TEST
NaN weights | conv@nan | TEST
opset of the future | conv@99 | TEST
unsupported operator | mystery | --precision fp32 ;; --precision fp16
picture of text | conv | ! echo text > test.png ;; TEST ;; ! rm test.png ;; TEST
pictures bad | conv | ! echo text > pictures/bad.jpg ;; INT8 ;; ! for p in pictures/*; do echo text > $p; done ;; INT8
pictures of one colour | conv | ! for p in pictures/*; do cp black.png $p; done ;; INT8
folders | conv | ! mkdir none ;; --precision int8 --calibration-dir none ;; --validation-dir none ;; --validation-dir nowhere
pictures for arrays | layernorm | TEST ;; INT8
arrays wrong | matmul | ! cp wrong.npz nan.npz arrays ;; --test-image wrong.npz ;; --test-image nan.npz ;; ARRAYS
arrays of another model | pair | --test-image wrong.npz
unwritable | conv | -o test.png/x.engine ;; --save-onnx nowhere/s.onnx ;; --json nowhere/r.json ;; QUICK --calibration-cache nowhere/c.cache
names | conv | ! mv net.onnx "модель 模型.onnx" ;; --onnx "модель 模型.onnx" TEST --report "<b>r.html"
example fp16 | example | TEST --save-onnx s.onnx --report r.html
example int8 fast | example | INT8 --quantization-effort fast --calibration-samples 20 CACHE --validation-dir valid
example int8 drop small | example | INT8 --quantization-effort fast --calibration-samples 20 --max-accuracy-drop 0.05 CACHE
example int8 | example | --precision int8 --calibration-dir pictures --calibration-samples 20 CACHE --report r.html
PP-OCRv4 det fp16 | det | --opt-shapes x:1x3x640x640 TEST --save-onnx s.onnx
PP-OCR cls int8 | cls | --opt-shapes x:1x3x48x192 QUICK CACHE --report r.html ;; --opt-shapes x:1x3x48x192 QUICK --max-accuracy-drop 1
"""


def matrix() -> dict[str, tuple[str, list[str]]]:
    """Title -> (model, commands)."""
    text = CASES
    for model in (*FROM_PICTURES, *FROM_ARRAYS):
        data = "--calibration-dir pictures TEST" if model in FROM_PICTURES else "--calibration-dir arrays --test-image x.npz"
        for precision in ("fp32", "fp16", "int8"):
            text += f"{model} {precision} | {model} | --precision {precision} {data} CACHE\n"
    for word in ("entropy", "minmax", "percentile", "mse"):
        text += f"method {word} | wide | INT8 --calibration-method {word} CACHE\n"
    for word in ("fast", "default", "best"):
        text += f"effort {word} | everything | NOISE --quantization-effort {word} CACHE\n"
    for word, meaning in SHORT.items():
        text = text.replace(word, meaning)
    rows = ([cell.strip() for cell in line.split("|", 2)] for line in text.splitlines())
    return {title: (model, [line.strip() for line in lines.split(";;")]) for title, model, lines in rows}


def write_case(model: str, folder: Path, root: Path) -> None:
    """net.onnx, pictures/, valid/, arrays/, test.png, x.npz, and data that is wrong.

    Args:
        root: the checkout whose example and test data are used.
    """
    import cv2
    import numpy as np

    for name in ("pictures", "valid", "arrays", "tmp"):
        (folder / name).mkdir()
    if model in REAL:
        _copy_real(model, folder, root)
        return
    random = np.random.default_rng(0)
    for place in ("test", *(f"pictures/{index}" for index in range(8)), *(f"valid/{index}" for index in range(4))):
        pixels = random.integers(0, 224, (5, 6, 3)).repeat(8, 0).repeat(8, 1) + random.integers(0, 32, (40, 48, 3))  # patches and noise
        cv2.imwrite(str(folder / f"{place}.png"), pixels.astype(np.uint8))
    cv2.imwrite(str(folder / "black.png"), np.zeros((16, 16, 3), np.uint8))
    inputs = _write_model(model, folder / "net.onnx")
    for place in ("x", *(f"arrays/{index}" for index in range(8))):
        np.savez(folder / place, **{name: _random_array(shape, dtype, random) for name, (shape, dtype) in inputs.items()})
    np.savez(folder / "wrong", x=np.zeros((1, 5), np.float32))
    np.savez(folder / "nan", **{name: np.full(shape, np.nan, np.float32) for name, (shape, _) in inputs.items()})


def _copy_real(model: str, folder: Path, root: Path) -> None:
    import cv2

    sys.path.insert(0, str(root))
    from tests.real_models import ppocr

    data = root / ("examples/ultralight_segmentation" if model == "example" else "tests/data/ppocr_det")
    source = data / "model.onnx" if model == "example" else ppocr(model)
    (folder / "net.onnx").write_bytes(source.read_bytes())
    for path in sorted((data / "calibration").iterdir())[:24]:
        (folder / "pictures" / path.name).write_bytes(path.read_bytes())
    places = ("test.png", *(f"valid/{index}.png" for index in range(4)))
    for place, path in zip(places, sorted((data / "test").iterdir())):
        cv2.imwrite(str(folder / place), cv2.imread(str(path)))


def _write_model(name: str, path: Path) -> dict:
    """One of MODELS, changed by what stands behind the @.

    Returns:
        {input: (shape, dtype)}
    """
    import onnx

    base, _, change = name.partition("@")
    text = next(text for text in re.split(r"\n(?=\w)", MODELS) if text.startswith(base + " "))
    text = text.replace("float", "float16") if change == "half" else text
    domains = ', "acme": 1' if "acme." in text else ""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {change if change.isdigit() else 17}{domains}]> {text}')
    for value in model.graph.value_info:
        shape, dtype = _spec(value)
        array = _random_weight(value.name, shape) * (float("nan") if change == "nan" else 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), value.name))
    del model.graph.value_info[:]
    onnx.save(model, path, save_as_external_data=change == "external", location="net.data", size_threshold=0)
    return {value.name: _spec(value) for value in model.graph.input}


def _spec(value) -> tuple:
    """(shape, dtype) of an onnx.ValueInfoProto."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = value.type.tensor_type
    return tuple(dim.dim_value or FREE.get(dim.dim_param, 1) for dim in kind.shape.dim), tensor_dtype_to_np_dtype(kind.elem_type)


def _random_weight(name: str, shape: tuple[int, ...]):
    """The same in every model where a name and a shape are."""
    import numpy as np

    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
    if name == "variance":
        return np.abs(values) + 0.5
    if name == "uneven":  # channels that balancing evens out
        return values * np.geomspace(0.02, 1, shape[0]).reshape(-1, 1, 1, 1)
    return 64 * values if name == "integers" else values


def _random_array(shape: tuple[int, ...], dtype, random):
    return (random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 9, shape)).astype(dtype)
